"""Refusals as raw bytes: no parser, no header objects, one write."""

import http
import math
from typing import Final

import msgspec

from gateway.admission.outcome import Refuse
from gateway.edge.errors import Refusal
from gateway.session.errors import REASON_MAX_BYTES, close_reason
from tidegate.wire.frames import (
    CLOSE_CREDENTIAL,
    CLOSE_REVOKED,
    CLOSE_TRY_AGAIN_LATER,
    RETRY_AFTER_MS_HEADER,
    TICKET_HEADER,
)

_encode = msgspec.json.Encoder().encode

_STATUS_LINES: Final = {
    status: (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        "Content-Type: application/json\r\nConnection: close\r\n"
    ).encode()
    for status in http.HTTPStatus
}
_COME_BACK: Final = _STATUS_LINES[http.HTTPStatus.SERVICE_UNAVAILABLE].decode()


def bad_request(reason: str, detail: str) -> Refusal:
    """A 400: the request itself is broken."""
    return Refusal(http.HTTPStatus.BAD_REQUEST, "bad_request", reason=reason, detail=detail)


def come_back(outcome: Refuse) -> Refusal:
    """The 503 for a device that must come back in its slot."""
    return Refusal(
        http.HTTPStatus.SERVICE_UNAVAILABLE,
        "admission",
        reason=outcome.reason,
        retry_ms=hint_ms(outcome.retry_s),
        ticket=outcome.ticket,
    )


def hint_ms(seconds: float) -> int:
    """Whole milliseconds, rounded up: a device must not come back earlier."""
    return max(1, math.ceil(seconds * 1000))


def render_come_back(outcome: Refuse) -> bytes:
    """As `render_refusal(come_back(outcome))`, without the objects in between. A storm consists of
    these refusals.
    """
    retry_ms = hint_ms(outcome.retry_s)
    ticket = outcome.ticket
    if ticket:
        header, member = f"{TICKET_HEADER}: {ticket}\r\n", f',"ticket":"{ticket}"'
    else:
        header = member = ""
    body = f'{{"error":"admission","reason":"{outcome.reason}","retry_ms":{retry_ms}{member}}}'
    return (
        f"{_COME_BACK}Content-Length: {len(body)}\r\nRetry-After: {-(-retry_ms // 1000)}\r\n"
        f"{RETRY_AFTER_MS_HEADER}: {retry_ms}\r\n{header}\r\n{body}"
    ).encode()


def render_refusal(refusal: Refusal) -> bytes:
    """The whole HTTP/1.1 response, closing the connection."""
    body: dict[str, str | int] = {"error": refusal.error}
    headers = ""
    if refusal.reason:
        body["reason"] = refusal.reason
    if refusal.detail:
        body["detail"] = refusal.detail
    if refusal.retry_ms is not None:
        # Whole seconds, rounded up: not earlier than the slot (RFC 9110 section 10.2.3).
        headers = (
            f"Retry-After: {-(-refusal.retry_ms // 1000)}\r\n"
            f"{RETRY_AFTER_MS_HEADER}: {refusal.retry_ms}\r\n"
        )
        body["retry_ms"] = refusal.retry_ms
    if refusal.ticket:
        headers += f"{TICKET_HEADER}: {refusal.ticket}\r\n"
        body["ticket"] = refusal.ticket
    status = refusal.status
    if status == 401:  # noqa: PLR2004  # RFC 9110 section 11.6.1 demands the challenge
        headers += 'WWW-Authenticate: Bearer realm="tidegate"\r\n'
    elif status == 426:  # noqa: PLR2004  # RFC 9110 section 15.5.22 demands the protocol
        headers += "Upgrade: websocket\r\n"
    text = _encode(body)
    return b"%bContent-Length: %d\r\n%b\r\n%b" % (
        _STATUS_LINES[status],
        len(text),
        headers.encode(),
        text,
    )


def close_of(refusal: Refusal) -> tuple[int, str]:
    """The close code and reason for a client that cannot read an HTTP answer (browsers)."""
    if refusal.retry_ms is not None:
        hint: dict[str, str | int] = {"retry_ms": refusal.retry_ms}
        if refusal.ticket:
            hint["ticket"] = refusal.ticket
        reason = _encode(hint).decode()
        assert len(reason) <= REASON_MAX_BYTES
        return CLOSE_TRY_AGAIN_LATER, reason
    code = CLOSE_REVOKED if refusal.error == "revoked" else CLOSE_CREDENTIAL
    return code, close_reason(refusal.error, refusal.detail)
