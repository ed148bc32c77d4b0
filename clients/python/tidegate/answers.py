"""What an answer to a knock, or a close, means. Pure.

Load balancers, proxies and captive portals stand between a device and its gateway. They answer 401,
403, 404 and 503 for reasons of their own. Only an answer with the JSON body of the contract means
what the contract says. Any other answer is a failed attempt.
"""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from tidegate.backoff import TOLD_MS_MAX
from tidegate.wire import frames

_DETAIL_CHARS_MAX: Final = 200
_SECRET_CHARS_MIN: Final = 12
_digits = re.compile(r"[0-9]{1,12}").fullmatch
_ticket = re.compile(r"[A-Za-z0-9_=-]{1,256}").fullmatch
_jwt = re.compile(r"eyJ[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*){0,2}")
_control = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Meaning(enum.Enum):
    """What a device does about an answer."""

    CREDENTIAL = "another credential is needed"
    WAIT = "come back at the time given"
    POINTLESS = "no device endpoint of a gateway"
    FOREIGN = "no answer of a gateway"
    ABSENT = "there is no gateway behind the load balancer"
    ENDED = "the connection ended"
    OFFENCE = "the gateway objects to what this device did"


_OF_STATUS: Final[dict[int, tuple[Meaning, frozenset[str]]]] = {
    401: (Meaning.CREDENTIAL, frozenset({"credential"})),
    403: (Meaning.CREDENTIAL, frozenset({"revoked"})),
    400: (Meaning.POINTLESS, frozenset({"bad_request"})),
    404: (Meaning.POINTLESS, frozenset({"not_found"})),
    426: (Meaning.POINTLESS, frozenset({"upgrade_required"})),
    429: (Meaning.WAIT, frozenset()),
    503: (Meaning.WAIT, frozenset()),
}
"""For each status its meaning, and the values of `error` that confirm it; none named is any."""

_NOBODY_BEHIND: Final = frozenset({502, 503, 504})


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a knock was refused, or a connection closed. `retry_ms` is milliseconds."""

    status: int
    """The HTTP status, or the close code."""
    error: str
    reason: str = ""
    detail: str = ""
    retry_ms: int | None = None
    meaning: Meaning = Meaning.FOREIGN
    ticket: str | None = field(default=None, repr=False)

    @property
    def wants_elsewhere(self) -> bool:
        """Whether another address is the better choice."""
        return self.reason in {"draining", "capacity", "overload"}

    def __str__(self) -> str:
        words = [str(self.status), self.error, self.reason, self.detail]
        return " ".join(dict.fromkeys(word for word in words if word))


def read_answer(status: int, headers: Mapping[str, str], body: bytes, secret: str = "") -> Refusal:
    """Read the answer to a knock.

    Args:
        status: of the HTTP response.
        headers: of the response, case-insensitive.
        body: of the response.
        secret: the credential that was shown. If the peer repeats it, it is cut out of the words
            that reach a log.
    """
    document = _json_object(body)
    error = document.get("error")
    meaning, words = _OF_STATUS.get(status, (Meaning.FOREIGN, frozenset[str]()))
    if not isinstance(error, str) or (words and error not in words):
        absent = status in _NOBODY_BEHIND
        return Refusal(
            status, "not an answer of a gateway",
            meaning=Meaning.ABSENT if absent else Meaning.FOREIGN,
        )  # fmt: skip
    retry_ms = _milliseconds(_header(headers, frames.RETRY_AFTER_MS_HEADER), 1)
    if retry_ms is None:
        retry_ms = _milliseconds(_header(headers, "Retry-After"), 1_000)
    return Refusal(
        status,
        _words(error, secret),
        _words(document.get("reason"), secret),
        _words(document.get("detail"), secret),
        retry_ms,
        meaning,
        _ticket_of(_header(headers, frames.TICKET_HEADER)),
    )


def read_close(code: int, reason: str, secret: str = "") -> Refusal:
    """Read the close of a connection; a lost one has code 1006."""
    document = _json_object(reason.encode(errors="replace"))
    error = _words(document.get("error"), secret) or _CLOSES.get(code, "closed")
    detail = _words(document.get("detail"), secret)
    if not document:
        detail = _words(reason, secret)
    if code in (frames.CLOSE_CREDENTIAL, frames.CLOSE_REVOKED):
        return Refusal(code, error, detail=detail, meaning=Meaning.CREDENTIAL)
    if code == frames.CLOSE_TRY_AGAIN_LATER and document:
        retry_ms = document.get("retry_ms")
        told = retry_ms if isinstance(retry_ms, int) and retry_ms >= 0 else None
        ticket = _ticket_of(document.get("ticket"))
        return Refusal(code, error, "", detail, told, Meaning.WAIT, ticket)
    if code == frames.CLOSE_TAKEN_OVER or code in _OFFENCES:
        return Refusal(code, error, detail=detail, meaning=Meaning.OFFENCE)
    return Refusal(code, error, detail=detail, meaning=Meaning.ENDED)


_OFFENCES: Final = frozenset(
    {
        frames.CLOSE_PROTOCOL_ERROR,
        frames.CLOSE_UNSUPPORTED_DATA,
        frames.CLOSE_INVALID_DATA,
        frames.CLOSE_POLICY,
        frames.CLOSE_TOO_LARGE,
    }
)
_CLOSES: Final = {
    frames.CLOSE_NORMAL: "the gateway closed the connection",
    frames.CLOSE_GOING_AWAY: "the peer is going away",
    frames.CLOSE_ABNORMAL: "the connection was lost",
    frames.CLOSE_INTERNAL: "the gateway failed",
    frames.CLOSE_SERVICE_RESTART: "the gateway is going away",
    frames.CLOSE_TRY_AGAIN_LATER: "try again later",
    frames.CLOSE_CREDENTIAL: "the credential expired",
    frames.CLOSE_REVOKED: "revoked",
    frames.CLOSE_TAKEN_OVER: "a newer connection of this device took over",
}


def _json_object(text: bytes) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _header(headers: Mapping[str, str], name: str) -> str | None:
    """The value of a header that occurs once; None if it is repeated or missing."""
    try:
        return headers.get(name)
    except LookupError:
        return None


def _milliseconds(text: str | None, unit_ms: int) -> int | None:
    if text is None or _digits(text) is None:
        return None
    return min(int(text) * unit_ms, TOLD_MS_MAX)


def _ticket_of(text: Any) -> str | None:
    return text if isinstance(text, str) and _ticket(text) is not None else None


def _words(text: Any, secret: str) -> str:
    """A peer's words, fit for a log: short, on one line, without the secret."""
    if not isinstance(text, str):
        return ""
    if len(secret) >= _SECRET_CHARS_MIN:  # a shorter text is no token
        text = text.replace(secret, "<credential>")
    text = _jwt.sub("<credential>", text)  # a close reason may hold a part of it
    return _control.sub("?", text[:_DETAIL_CHARS_MAX])
