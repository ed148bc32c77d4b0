"""Verification keys from a JWKS document (RFC 7517), each bound to the one algorithm it serves.

This prevents algorithm confusion: the key, not the token, decides how a signature is checked, so a
public RSA key is never used as an HMAC secret (CVE-2022-29217 and similar ones).
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import jwt

from gateway.admission.errors import KeySetError

_HMAC_SECRET_BYTES_MIN: Final = 32  # RFC 7518 section 3.2
_RSA_BITS_MIN: Final = 2048  # RFC 7518 section 3.3


class KeySet:
    """Keys by `kid` and algorithm. Immutable: a rotation replaces the whole set."""

    __slots__ = ("_by_id", "_without_id")

    def __init__(self, keys: Iterable[tuple[str | None, str, jwt.PyJWK]]) -> None:
        self._by_id: dict[tuple[str, str], jwt.PyJWK] = {}
        self._without_id: dict[str, list[jwt.PyJWK]] = {}
        for kid, algorithm, key in keys:
            if kid is not None:
                self._by_id[kid, algorithm] = key
            self._without_id.setdefault(algorithm, []).append(key)

    @classmethod
    def from_jwks(cls, document: Any, algorithms: Iterable[str]) -> "KeySet":
        """Read a JWKS document and keep the keys of allowed algorithms.

        Raises:
            KeySetError: it is no JWKS, a key is weak, or no key is usable.
        """
        if not isinstance(document, Mapping) or not isinstance(document.get("keys"), list):
            raise KeySetError('a JWKS is a JSON object with a "keys" array')
        allowed = set(algorithms)
        keys = []
        for number, entry in enumerate(document["keys"]):
            algorithm = _algorithm_of(entry)
            if algorithm not in allowed:
                continue
            kid = entry.get("kid")
            if kid is not None and not isinstance(kid, str):
                raise KeySetError(f"key {number}: kid is not a string")
            keys.append((kid, algorithm, _load(number, entry, algorithm)))
        if not keys:
            raise KeySetError(f"no key for any of {', '.join(sorted(allowed))}")
        return cls(keys)

    def find(self, kid: str | None, algorithm: str) -> jwt.PyJWK | None:
        """The key that must have signed a token with this header, or None.

        Without a `kid` there must be exactly one key of that algorithm. Keys are never tried in
        turn.
        """
        if kid is not None:
            return self._by_id.get((kid, algorithm))
        candidates = self._without_id.get(algorithm, ())
        return candidates[0] if len(candidates) == 1 else None

    def __len__(self) -> int:
        return sum(len(keys) for keys in self._without_id.values())


def _algorithm_of(entry: Any) -> str | None:
    if not isinstance(entry, Mapping) or entry.get("use", "sig") != "sig":
        return None
    kinds: dict[tuple[Any, Any], str] = {
        ("oct", None): "HS256",
        ("RSA", None): "RS256",
        ("EC", "P-256"): "ES256",
        ("OKP", "Ed25519"): "EdDSA",
    }
    natural = kinds.get((str(entry.get("kty")), str(entry["crv"]) if "crv" in entry else None))
    return natural if entry.get("alg", natural) == natural else None


def _load(number: int, entry: Mapping[str, Any], algorithm: str) -> jwt.PyJWK:
    try:
        key = jwt.PyJWK(dict(entry), algorithm=algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError) as exc:
        # The message of PyJWT may quote the key. The class name is enough to find the entry.
        raise KeySetError(f"key {number} ({algorithm}) is broken: {type(exc).__name__}") from None
    if algorithm == "HS256" and len(key.key) < _HMAC_SECRET_BYTES_MIN:
        raise KeySetError(f"key {number}: an HS256 secret needs {_HMAC_SECRET_BYTES_MIN} bytes")
    if algorithm == "RS256" and key.key.key_size < _RSA_BITS_MIN:
        raise KeySetError(f"key {number}: an RSA key needs {_RSA_BITS_MIN} bits")
    return key
