"""Every way in which a knock can be refused: by a gateway, or by what stands before it."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from tidegate.wire import frames


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer that is not a connection."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def _of(status: int, **members: str | int) -> Answer:
    headers = {}
    body = {name: value for name, value in members.items() if value != ""}
    retry_ms, ticket = body.get("retry_ms"), body.get("ticket")
    if isinstance(retry_ms, int):
        headers[frames.RETRY_AFTER_MS_HEADER] = str(retry_ms)
        headers["Retry-After"] = str(math.ceil(retry_ms / 1000))
    if isinstance(ticket, str):
        headers[frames.TICKET_HEADER] = ticket
    return Answer(status, json.dumps(body).encode(), headers)


def credential(detail: str = "expired") -> Answer:
    """401: the gateway does not believe the credential."""
    return _of(401, error="credential", detail=detail)


def revoked() -> Answer:
    """403: the device or its token was revoked."""
    return _of(403, error="revoked")


def bad_request() -> Answer:
    """400: the request is broken."""
    return _of(400, error="bad_request")


def not_found() -> Answer:
    """404: the address is not that of a device endpoint."""
    return _of(404, error="not_found")


def upgrade_required() -> Answer:
    """426: the request is not for a WebSocket."""
    return _of(426, error="upgrade_required")


def device_rate(retry_ms: int = 1_000) -> Answer:
    """429: this device knocks too often."""
    return _of(429, error="device_rate", retry_ms=retry_ms)


def address_rate(retry_ms: int = 1_000) -> Answer:
    """429: this IP address knocks too often."""
    return _of(429, error="address_rate", retry_ms=retry_ms)


def admission(retry_ms: int = 1_000, *, reason: str = "rate", ticket: str = "") -> Answer:
    """503: no slot now. `reason` is `rate`, `overload`, `capacity` or `draining`."""
    return _of(503, error="admission", reason=reason, retry_ms=retry_ms, ticket=ticket)


def page(status: int = 503, html: str = "<html><h1>nginx</h1></html>") -> Answer:
    """The page of a load balancer, a proxy or a captive portal: not an answer of a gateway."""
    return Answer(status, html.encode(), {"Content-Type": "text/html"})
