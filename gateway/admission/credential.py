"""Device credentials: JWTs (RFC 7519), verified against an allow-list as RFC 8725 recommends.

Verifying a signature costs up to a hundred microseconds, and a storm shows each credential twice.
So verified credentials are remembered until they expire, up to a number of entries.
"""

import base64
import binascii
import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jwt
import msgspec
from jwt.types import Options

from gateway.admission.errors import CredentialError
from gateway.admission.keys import KeySet
from gateway.admission.ticket import device_hash

TOKEN_BYTES_MAX: Final = 4_096
KID_CHARS_MAX: Final = 256

_PART: Final = (
    # Base64url without padding, with spare bits of zero (RFC 7515 section 2, RFC 4648 section 3.5).
    # So a credential has only one text, and only one entry in the cache.
    r"(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-][AQgw]|[A-Za-z0-9_-]{2}[AEIMQUYcgkosw048])?"
)
_canonical = re.compile(rf"{_PART}\.{_PART}\.{_PART}").fullmatch

_FORGED: Final = frozenset({"malformed", "algorithm", "header", "key", "signature"})
"""Reasons that stay true until the keys change."""
_UNKNOWN_KEY: Final = "key"
_REASONS: Final = (
    (jwt.InvalidSignatureError, "signature"),
    (jwt.InvalidAudienceError, "audience"),
    (jwt.InvalidIssuerError, "issuer"),
)

# With these headers a token would choose its own key, or change what is signed. They are refused
# with a reason of their own, which shows a misconfigured issuer.
_FORBIDDEN_HEADERS: Final = ("crit", "jku", "jwk", "x5u", "x5c", "b64", "zip", "enc")


@dataclass(frozen=True, slots=True)
class Identity:
    """The device that a verified credential names. `expires_at` is Unix time in seconds."""

    device: str
    tenant: str
    group: str
    urgent: bool
    jti: str
    expires_at: float
    holder: bytes = b""
    """Hash of tenant and device, as in tickets; computed once, with the signature."""
    key: tuple[str, str] = field(init=False)
    """Tenant and device. All that note a session by them share this one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", (self.tenant, self.device))


@dataclass(frozen=True, slots=True)
class CredentialPolicy:
    """What the operator accepts. None for `audience` or `issuer` accepts any, or none at all."""

    algorithms: tuple[str, ...]
    audience: str | None
    issuer: str | None
    leeway_s: float


class CredentialVerifier:
    """Turns a JWT into an `Identity`, or says why not."""

    def __init__(
        self,
        keys: KeySet,
        policy: CredentialPolicy,
        *,
        clock: Callable[[], float],
        is_token: Callable[[str], bool],
        cache_entries_max: int,
        on_unknown_key: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            keys: verification keys; replace with `rotate`.
            policy: algorithms, audience, issuer, leeway.
            clock: Unix time in seconds.
            is_token: the grammar of device ids, tenants and groups.
            cache_entries_max: how many credentials are remembered; the least recently used is
                forgotten first.
            on_unknown_key: called for each token whose key is unknown; must return at once.
        """
        self._keys = keys
        self._policy = policy
        self._clock = clock
        self._is_token = is_token
        self._cache: OrderedDict[bytes, Identity] = OrderedDict()
        self._cache_entries_max = cache_entries_max
        self._known_bad: OrderedDict[bytes, str] = OrderedDict()
        self._on_unknown_key = on_unknown_key
        self.verifications = 0
        self.cache_hits = 0

    def rotate(self, keys: KeySet) -> None:
        """Replace the keys, and forget all credentials: their key may be gone."""
        self._keys = keys
        self._cache.clear()
        self._known_bad.clear()

    def __len__(self) -> int:
        return len(self._cache)

    def recall(self, token: str) -> Identity | None:
        """The identity of a token that was verified before; cheap.

        Returns:
            None if the token is not remembered and must be verified.

        Raises:
            CredentialError: it is known to be bad, or cannot be a credential.
        """
        return self._recall(token, _digest(token))

    def verify(self, token: str) -> Identity:
        """The identity that `token` proves.

        Raises:
            CredentialError: with a reason: missing, malformed, algorithm, header, key, signature,
                expired, not_yet, audience, issuer, claims.
        """
        digest = _digest(token)
        identity = self._recall(token, digest)
        if identity is not None:
            return identity
        self.verifications += 1
        try:
            identity = self._identity(self._claims(token), self._clock())
        except CredentialError as exc:
            if exc.reason == _UNKNOWN_KEY:
                self._on_unknown_key()
            if exc.reason in _FORGED:
                _remember(self._known_bad, digest, exc.reason, self._cache_entries_max)
            raise
        _remember(self._cache, digest, identity, self._cache_entries_max)
        return identity

    def _recall(self, token: str, digest: bytes) -> Identity | None:
        if not token:
            raise CredentialError("missing")
        if len(token) > TOKEN_BYTES_MAX or not token.isascii():
            raise CredentialError("malformed", f"over {TOKEN_BYTES_MAX} bytes or not ASCII")
        identity = self._cache.get(digest)
        if identity is None:
            reason = self._known_bad.get(digest)
            if reason is not None:
                if reason == _UNKNOWN_KEY:
                    self._on_unknown_key()
                raise CredentialError(reason)
            return None
        if identity.expires_at + self._policy.leeway_s <= self._clock():
            del self._cache[digest]
            raise CredentialError("expired")
        self._cache.move_to_end(digest)
        self.cache_hits += 1
        return identity

    def _claims(self, token: str) -> Mapping[str, Any]:
        """The claims of a token, once its signature, audience and issuer are right."""
        if not _canonical(token):
            raise CredentialError("malformed", "not three parts of unpadded base64url")
        algorithm, key = self._key_of(_unverified_header(token))
        policy = self._policy
        try:
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=policy.audience,
                issuer=policy.issuer,
                options=_options(policy),
            )
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as exc:
            raise _meaning_of(exc) from None
        return claims

    def _key_of(self, header: Mapping[str, Any]) -> tuple[str, jwt.PyJWK]:
        """The algorithm and the key that must have signed a token with this header."""
        algorithm = header.get("alg")
        if algorithm not in self._policy.algorithms:
            raise CredentialError("algorithm", "not on the allow-list")
        for name in _FORBIDDEN_HEADERS:
            if name in header:
                raise CredentialError("header", f"{name} is not accepted")
        kid = header.get("kid")
        if kid is not None and (not isinstance(kid, str) or len(kid) > KID_CHARS_MAX):
            raise CredentialError("key", "kid is no short string")
        key = self._keys.find(kid, algorithm)
        if key is None:
            raise CredentialError(_UNKNOWN_KEY, "no such key for that algorithm")
        return algorithm, key

    def _identity(self, claims: Mapping[str, Any], now: float) -> Identity:
        leeway_s = self._policy.leeway_s
        expires_at = _numeric_date(claims, "exp")
        if expires_at + leeway_s <= now:
            raise CredentialError("expired")
        if "nbf" in claims and _numeric_date(claims, "nbf") - leeway_s > now:
            raise CredentialError("not_yet")
        urgency = claims.get("class", "normal")
        if urgency not in ("urgent", "normal"):
            raise CredentialError("claims", "class is neither urgent nor normal")
        jti = claims.get("jti", "")
        if not isinstance(jti, str) or len(jti) > KID_CHARS_MAX:
            raise CredentialError("claims", "jti is no short string")
        device = self._name(claims, "sub", None)
        tenant = self._name(claims, "tenant", "default")
        return Identity(
            device=device,
            tenant=tenant,
            group=self._name(claims, "group", "default"),
            urgent=urgency == "urgent",
            jti=jti,
            expires_at=expires_at,
            holder=device_hash(tenant, device),
        )

    def _name(self, claims: Mapping[str, Any], claim: str, default: str | None) -> str:
        name = claims.get(claim, default)
        if not isinstance(name, str) or not self._is_token(name):
            raise CredentialError("claims", f"{claim} must match [A-Za-z0-9_-]{{1,64}}")
        return name


def _meaning_of(exc: Exception) -> CredentialError:
    """The error of this room for an error of PyJWT, whose message may quote the token."""
    for kind, reason in _REASONS:
        if isinstance(exc, kind):
            return CredentialError(reason)
    if isinstance(exc, jwt.MissingRequiredClaimError):
        reason = {"aud": "audience", "iss": "issuer"}.get(exc.claim, "claims")
        return CredentialError(reason, f"{exc.claim} is missing")
    return CredentialError("malformed")


def _digest(token: str) -> bytes:
    """The key in the cache: of the same size for any token, and no secret."""
    return hashlib.blake2s(token.encode(errors="replace"), digest_size=16).digest()


def _remember(cache: OrderedDict[bytes, Any], digest: bytes, value: Any, entries_max: int) -> None:
    cache[digest] = value
    if len(cache) > entries_max:
        cache.popitem(last=False)


def _unverified_header(token: str) -> dict[str, Any]:
    """The header, which names the key. PyJWT reads it again and must find the same algorithm.

    Raises:
        CredentialError: it is no JSON object.
    """
    try:
        part = token[: token.index(".")]
        header = msgspec.json.decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError):  # binascii's and msgspec's errors are ValueErrors
        raise CredentialError("malformed") from None
    if not isinstance(header, dict):
        raise CredentialError("malformed")
    return header


def claimed_holder(token: str) -> bytes | None:
    """The ticket holder that a token claims to be, unverified; None if it names no device.

    Only for checking whether a ticket fits, before any signature is checked.
    """
    try:
        payload = token.split(".", 2)[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return device_hash(claims.get("tenant", "default"), claims["sub"])
    except (
        IndexError, KeyError, ValueError, TypeError, AttributeError, RecursionError, binascii.Error,
    ):  # fmt: skip
        return None


def _options(policy: CredentialPolicy) -> Options:
    return {
        # `_identity` checks times, with the injected clock.
        "verify_exp": False,
        "verify_nbf": False,
        "verify_iat": False,
        "verify_aud": policy.audience is not None,
        "require": ["exp", "sub"],
    }


_UNIX_TIME_MAX: Final = 253_402_300_799  # the year 9999 keeps timers and arithmetic finite


def _numeric_date(claims: Mapping[str, Any], claim: str) -> float:
    value = claims[claim]
    # In Python a bool is an int, but no time.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CredentialError("claims", f"{claim} is no number")
    if not 0 <= value <= _UNIX_TIME_MAX:
        raise CredentialError("claims", f"{claim} is out of range")
    return float(value)
