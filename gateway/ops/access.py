"""Who may do what on the operators' port: tokens with roles, loopback without them. Pure.

A token file has a line for each token, with fields apart by white space; `#` begins a comment:

    # name   role     token                                         expires (optional, RFC 3339)
    alice    operate  3vCk0mU2hF0m8sJ3uYl0Qm1yq5bX4wRk5J8c3m0s9Q4
    wall     read     sha256:9f86d081884c7d659a2feaa0c55ad015a3bf...  2027-01-01T00:00:00Z

`read` sees what names a device; `operate` also changes something. A token may be written as the
SHA-256 of its text, so that the file need not hold it. Only digests are kept in memory. A presented
token is compared with every digest, each in constant time (CWE-208).

Without a token file, both roles are open to this machine alone: the peer must be a loopback
address, and no proxy may say that it forwards for somebody else.
"""

import datetime as dt
import enum
import hashlib
import hmac
import ipaddress
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Protocol

from gateway.ops.errors import BadTokenFile, Denied

TOKENS_MAX: Final = 256
TOKEN_CHARS_MIN: Final = 24
TOKEN_CHARS_MAX: Final = 512
FAILURES_BURST: Final = 10
"""Wrong tokens that one address may show at once."""
FAILURE_EVERY_S: Final = 6.0
"""After those, one in so many seconds."""
ADDRESSES_MAX: Final = 1_024
"""Addresses whose failures are counted; the one that failed longest ago is forgotten first."""
LOOPBACK: Final = "loopback"
"""Who an operator without a token is, in the log."""

OPERATOR_HEADER: Final = "Tidegate-Operator"
"""Names the operator on whose behalf a supervisor asks its worker."""

_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
"""A request with one of these headers comes from elsewhere, whatever its peer is."""
_NAME: Final = re.compile(r"[A-Za-z0-9_.@-]{1,64}")
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # `b64token` of RFC 6750 section 2.1
_SHA256: Final = "sha256:"
_FIELDS: Final = (3, 4)


class Role(enum.StrEnum):
    """What a token is good for."""

    READ = "read"
    OPERATE = "operate"

    def covers(self, wanted: "Role") -> bool:
        """Whether this role includes `wanted`."""
        return self is Role.OPERATE or self is wanted


@dataclass(frozen=True, slots=True)
class Token:
    """One token of the file, without its text."""

    name: str
    role: Role
    digest: bytes
    """SHA-256 of the token."""
    expires_at: float | None = None
    """Unix time in seconds."""


def parse_tokens(text: str) -> tuple[Token, ...]:
    """The tokens of a file.

    Raises:
        BadTokenFile: naming the line and its offence, never a token.
    """
    found: list[Token] = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.partition("#")[0].split()
        if not fields:
            continue
        try:
            found.append(_token(fields))
        except ValueError as exc:
            raise BadTokenFile(f"line {number}: {exc}") from None
    for what in ("name", "digest"):
        if len({getattr(token, what) for token in found}) < len(found):
            raise BadTokenFile(f"two lines have the same {'token' if what == 'digest' else what}")
    if not found:
        raise BadTokenFile("holds no token: nobody could operate this process")
    if len(found) > TOKENS_MAX:
        raise BadTokenFile(f"holds {len(found)} tokens; {TOKENS_MAX} is the most")
    return tuple(found)


def _token(fields: Sequence[str]) -> Token:
    """
    Raises:
        ValueError: the offence of this line.
    """
    if len(fields) not in _FIELDS:
        raise ValueError("must be `name role token [expires]`")
    name, role, text, *expires = fields
    if not _NAME.fullmatch(name):
        raise ValueError("the name must match [A-Za-z0-9_.@-]{1,64}")
    if role not in list(Role):
        raise ValueError(f"the role must be {' or '.join(Role)}")
    return Token(name, Role(role), _digest_of(text), _moment(expires[0]) if expires else None)


def _digest_of(text: str) -> bytes:
    if text.startswith(_SHA256):
        given = bytes.fromhex(text.removeprefix(_SHA256))
        if len(given) != hashlib.sha256().digest_size:
            raise ValueError("a SHA-256 has 64 hexadecimal digits")
        return given
    if not TOKEN_CHARS_MIN <= len(text) <= TOKEN_CHARS_MAX:
        raise ValueError(f"the token must have {TOKEN_CHARS_MIN} to {TOKEN_CHARS_MAX} characters")
    if not _TOKEN.fullmatch(text):
        raise ValueError("the token must consist of letters, digits and -._~+/, and end with =")
    return digest(text)


def digest(token: str) -> bytes:
    """What is kept of a token."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


def _moment(text: str) -> float:
    moment = dt.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("the time of expiry must name its zone, like 2027-01-01T00:00:00Z")
    return moment.timestamp()


class FailedAttempts:
    """Limits how many wrong tokens an address may show. IPv6 addresses count by their /64.

    A refused address is not compared at all, and its attempts meanwhile do not prolong the wait.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """
        Args:
            clock: monotonic seconds.
        """
        self._clock = clock
        self._free_at: OrderedDict[str, float] = OrderedDict()
        """Of each address, when all its failures are forgiven (a GCRA)."""

    def wait_s(self, address: str) -> float:
        """How long the address must wait before it may show a token; 0 if it may now."""
        free_at = self._free_at.get(_network(address), 0.0)
        return max(0.0, free_at - (FAILURES_BURST - 1) * FAILURE_EVERY_S - self._clock())

    def failed(self, address: str) -> None:
        """The address has shown a wrong token."""
        network, now = _network(address), self._clock()
        self._free_at[network] = max(self._free_at.get(network, now), now) + FAILURE_EVERY_S
        self._free_at.move_to_end(network)
        if len(self._free_at) > ADDRESSES_MAX:
            self._free_at.popitem(last=False)


class Judge(Protocol):
    """Says whether a request may do what its route does."""

    def judge(self, wanted: Role, headers: Mapping[str, str], peer: str) -> str:
        """
        Returns:
            Who asks.

        Raises:
            Denied: it may not.
        """


class JudgedBefore:
    """For a port whose only peer judges each request itself, and says who asks.

    Such a port is a worker's: a socket file that this user alone can open, for its supervisor.
    """

    def judge(self, wanted: Role, headers: Mapping[str, str], peer: str) -> str:
        """Who asks, as the peer says."""
        del wanted, peer
        return headers.get(OPERATOR_HEADER, "supervisor")


class Access:
    """Judges each request that changes something or names a device."""

    def __init__(
        self,
        tokens: Sequence[Token] | None,
        *,
        wall: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        """
        Args:
            tokens: those that are good; None if there is no token file.
            wall: Unix time in seconds.
            clock: monotonic seconds.
        """
        self._tokens = tokens
        self._wall = wall
        self._attempts = FailedAttempts(clock)

    def replace(self, tokens: Sequence[Token]) -> None:
        """From now on, these are good, and no others."""
        self._tokens = tokens

    def judge(self, wanted: Role, headers: Mapping[str, str], peer: str) -> str:
        """Whether a request may do what needs the role `wanted`.

        Args:
            wanted: the role that the route needs.
            headers: of the request, with case-insensitive names.
            peer: address of the other side.

        Returns:
            Who asks: the name of the token, or `loopback`.

        Raises:
            Denied: it may not.
        """
        if self._tokens is None:
            return _local(headers, peer)
        shown = headers.get("Authorization")
        if shown is None:
            raise Denied(HTTPStatus.UNAUTHORIZED, "token_missing", "this needs a bearer token")
        wait_s = self._attempts.wait_s(peer)
        if wait_s:
            detail = "too many wrong tokens from this address"
            raise Denied(HTTPStatus.TOO_MANY_REQUESTS, "attempts", detail, retry_s=wait_s)
        token = self._find(self._tokens, shown)
        if token is None or self._expired(token):
            self._attempts.failed(peer)
            expired = token is not None
            error = "token_expired" if expired else "token_wrong"
            detail = "the token has expired" if expired else "no such token"
            raise Denied(
                HTTPStatus.UNAUTHORIZED, error, detail, who=token.name if token is not None else ""
            )
        if not token.role.covers(wanted):
            detail = f"the token's role is {token.role}; this needs {wanted}"
            raise Denied(HTTPStatus.FORBIDDEN, "role", detail, who=token.name)
        return token.name

    def _expired(self, token: Token) -> bool:
        return token.expires_at is not None and token.expires_at <= self._wall()

    @staticmethod
    def _find(tokens: Sequence[Token], shown: str) -> Token | None:
        """Compare with all of them, so that the time says nothing about which one is near."""
        scheme, _, text = shown.partition(" ")
        presented = digest(text.strip() if scheme.lower() == "bearer" else "")
        found = None
        for token in tokens:
            if hmac.compare_digest(token.digest, presented):
                found = token
        return found


def _local(headers: Mapping[str, str], peer: str) -> str:
    """
    Raises:
        Denied: the request is not from this machine.
    """
    if not _is_loopback(peer) or any(name in headers for name in _FORWARDED):
        detail = "without ops.token_file, this works from the gateway's own machine only"
        raise Denied(HTTPStatus.FORBIDDEN, "not_loopback", detail)
    return LOOPBACK


def _is_loopback(peer: str) -> bool:
    address = _address(peer)
    return address is not None and address.is_loopback


def _network(peer: str) -> str:
    """What counts as one address: of IPv6, the network of its owner."""
    address = _address(peer)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((address, 64), strict=False))
    return str(address)


def _address(peer: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
