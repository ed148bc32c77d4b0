"""The request head read as raw bytes: enough to refuse a knock for microseconds.

Only a head of the plainest form is read here; whatever is in any way unusual (a repeated header, a
folded line, a query, a lower-case method) is left to the full parser, which is the judge of every
connection that is let in as well. So this scan can save work, and never decide what it misreads.
"""

import re
from dataclasses import dataclass

from gateway.session import frames

_shape = re.compile(
    # Exactly our request line, then well-formed header lines (RFC 9112 section 5), then the end.
    rb"GET %b HTTP/1\.1\r\n(?:[!#$%%&'*+.^_`|~0-9A-Za-z-]+:[ \t]*[\x20-\x7e]*\r\n){1,64}\r\n"
    % re.escape(frames.PATH.encode())
)
_wanted = re.compile(
    rb"\r\n(authorization|tidegate-ticket|upgrade|connection|sec-websocket-protocol"
    rb"|sec-websocket-version|sec-websocket-key|content-length|transfer-encoding)"
    rb":[ \t]*([\x20-\x7e]*?)[ \t]*(?=\r\n)",
    re.IGNORECASE,
)
_bearer = re.compile(rb"bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE).fullmatch


@dataclass(frozen=True, slots=True)
class Petition:
    """What a knock asks for: to be let in with this credential, perhaps in the slot of a ticket."""

    token: str
    ticket: str


def scan_head(head: bytes) -> Petition | None:
    """Read a complete head.

    Returns:
        The petition, or None if the full parser should look.
    """
    if _shape.fullmatch(head) is None:
        return None
    found: dict[bytes, bytes] = {}
    for name, value in _wanted.findall(head):
        name = name.lower()  # noqa: PLW2901  # one spelling
        if name in found:
            return None
        found[name] = value
    credential = _bearer(found.get(b"authorization", b""))
    if (
        credential is None
        or found.get(b"upgrade", b"").lower() != b"websocket"
        or found.get(b"connection", b"").lower() != b"upgrade"
        or found.get(b"sec-websocket-version") != b"13"
        or found.get(b"sec-websocket-protocol") != frames.SUBPROTOCOL.encode()
        or len(found.get(b"sec-websocket-key", b"")) != 24  # noqa: PLR2004  # RFC 6455 section 4.1
        or b"content-length" in found
        or b"transfer-encoding" in found
    ):
        return None
    return Petition(credential[1].decode(), found.get(b"tidegate-ticket", b"").decode())
