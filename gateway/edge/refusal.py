"""Refusals as raw bytes: no parser, no header objects, one write."""

import json

from gateway.edge.errors import Refusal
from gateway.session.frames import RETRY_AFTER_MS_HEADER


def render_refusal(refusal: Refusal) -> bytes:
    """The whole HTTP/1.1 response, closing the connection."""
    body: dict[str, str | int] = {"error": refusal.error}
    headers = ""
    if refusal.reason:
        body["reason"] = refusal.reason
    if refusal.detail:
        body["detail"] = refusal.detail
    if refusal.retry_ms is not None:
        # Whole seconds, rounded up: a hint is a floor (RFC 9110 section 10.2.3).
        headers += f"Retry-After: {-(-refusal.retry_ms // 1000)}\r\n"
        headers += f"{RETRY_AFTER_MS_HEADER}: {refusal.retry_ms}\r\n"
        body["retry_ms"] = refusal.retry_ms
    if refusal.status == 401:  # noqa: PLR2004  # RFC 9110 section 11.6.1 demands the challenge
        headers += 'WWW-Authenticate: Bearer realm="tidegate"\r\n'
    if refusal.status == 426:  # noqa: PLR2004  # RFC 9110 section 15.5.22 demands the protocol
        headers += "Upgrade: websocket\r\n"
    text = json.dumps(body, separators=(",", ":"))
    return (
        f"HTTP/1.1 {refusal.status.value} {refusal.status.phrase}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n"
        f"Connection: close\r\n{headers}\r\n{text}"
    ).encode()
