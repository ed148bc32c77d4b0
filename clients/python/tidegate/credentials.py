"""Where a credential comes from, how long it is valid, how often it may be asked for. Pure."""

import base64
import binascii
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

from tidegate.errors import BadCredential, CredentialRefused

CredentialProvider = Callable[[str | None], Awaitable[str]]
"""Returns a JWT. Its argument is the reason why the gateway refused the last one, or None.

It may take as long as it needs; the device does not connect meanwhile. If it raises, it is called
again later, with backoff; `CredentialRefused` makes the device give up. It is called again before
the credential expires, to renew it on the open connection, and never more than eight times a
minute.
"""

_CALLS_AT_ONCE: Final = 2
_CALL_INTERVAL_S: Final = 10.5
"""Two calls at once and then one each 10.5 s are at most eight calls in any minute."""

_not_visible = re.compile(r"[^!-~]").search


def check_token(token: object) -> str:
    """
    Returns:
        `token`.

    Raises:
        BadCredential: an HTTP header cannot carry it. The error does not repeat the token.
    """
    if not isinstance(token, str):
        raise BadCredential(f"a credential is a str, not {type(token).__name__}")
    if not token:
        raise BadCredential("the credential is empty")
    found = _not_visible(token)
    if found is not None:
        where = "at its end" if found.start() == len(token.rstrip()) else f"at {found.start()}"
        raise BadCredential(
            f"the credential holds {found[0]!r} {where}; a token has no such character"
        )
    return token


def static_credential(token: str) -> CredentialProvider:
    """A provider of one token. Once the token is refused, the device gives up.

    Raises:
        BadCredential: an HTTP header cannot carry it.
    """
    check_token(token)

    async def provide(refused: str | None) -> str:
        if refused is not None:
            raise CredentialRefused(refused)
        return token

    return provide


def token_span_s(token: str) -> float | None:
    """For how many seconds a JWT is valid, by its own `exp` and `iat` (or `nbf`), unverified.

    None if the token does not say. It tells when to renew the token; whether the token is valid is
    for the gateway to decide. Both times are the issuer's, so no clock of the device is involved.
    """
    claims = _claims(token)
    begin, end = _number(claims.get("iat", claims.get("nbf"))), _number(claims.get("exp"))
    if begin is None or end is None:
        return None
    span_s = end - begin
    return span_s if 0 < span_s < _SPAN_MAX_S else None


_SPAN_MAX_S: Final = 100 * 366 * 86_400.0


def _number(value: Any) -> float | None:
    # The comparison also keeps out NaN, infinity and integers no float can hold.
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**62:
        return float(value)
    return None


def _claims(token: str) -> dict[str, Any]:
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, RecursionError, binascii.Error):
        return {}
    return claims if isinstance(claims, dict) else {}


class CallBudget:
    """How often the provider may be called: GCRA over the monotonic clock. Times in seconds."""

    def __init__(
        self, calls_at_once: int = _CALLS_AT_ONCE, interval_s: float = _CALL_INTERVAL_S
    ) -> None:
        self._tolerance_s = (calls_at_once - 1) * interval_s
        self._interval_s = interval_s
        self._free_at = float("-inf")

    def delay_s(self, now: float) -> float:
        """How long the next call must wait."""
        return max(0.0, self._free_at - self._tolerance_s - now)

    def take(self, now: float) -> None:
        """The provider is called now."""
        self._free_at = max(self._free_at, now) + self._interval_s
