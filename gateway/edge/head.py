"""The request head read as raw bytes: enough to refuse a knock for microseconds.

Only a head of the plainest form is read here; whatever is in any way unusual (a repeated header, a
folded line, a query, a lower-case method) is left to the full parser (`handshake.py`), the judge of
every connection that is let in as well. So this scan can save work, and never decide what it
misreads. What it accepts, the full parser accepts with the same petition: `make fuzz-heads` looks
for an exception.

A storm is a few client programs a thousand times over: but for key, credential and ticket their
heads are the same bytes. `HeadScanner` remembers what is left when those three are cut out, and
reads the next head of that form by cutting alone.
"""

import re
from typing import Final

from msgspec import Struct

from tidegate.wire import frames

_shape = re.compile(
    # Exactly our request line, then well-formed header lines (RFC 9112 section 5), then the end.
    rb"GET %b HTTP/1\.1\r\n(?:[!#$%%&'*+.^_`|~0-9A-Za-z-]+:[\x20-\x7e]*\r\n){1,64}\r\n"
    % re.escape(frames.PATH.encode())
).fullmatch
_SCHEME: Final = b" bearer "
_TOKEN_BYTES: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
"""Of a JWT in compact form (RFC 7515 section 3.1)."""

_ONCE: Final = (
    b"\r\nupgrade: websocket\r\n",
    b"\r\nconnection: upgrade\r\n",
    b"\r\nsec-websocket-version: 13\r\n",
    b"\r\nsec-websocket-protocol: %b\r\n" % frames.SUBPROTOCOL.encode(),
)
"""Lines of the plainest handshake (RFC 6455 section 4.1). Each name may come once."""
_KEY: Final = b"\r\nsec-websocket-key:"
_key = re.compile(rb" ?[A-Za-z0-9+/]{22}==").fullmatch  # 16 bytes in base64
_NAMES: Final = (*(line[: line.index(b":") + 1] for line in _ONCE), _KEY)
_BODY: Final = (b"\r\ncontent-length:", b"\r\ntransfer-encoding:")
_SUBPROTOCOL: Final = b"\r\nsec-websocket-protocol:"
_OURS: Final = b" %b" % frames.SUBPROTOCOL.encode()
"""Of the values above the only one in which case matters."""
_CREDENTIAL: Final = b"\r\nauthorization:"
_TICKET: Final = b"\r\n%b:" % frames.TICKET_HEADER.lower().encode()


# As the well-known clients write them; who writes them otherwise is scanned each time.
_KEY_LINE: Final = b"\r\nSec-WebSocket-Key: "
_CREDENTIAL_LINE: Final = b"\r\nAuthorization: Bearer "
_TICKET_LINE: Final = b"\r\n%b: " % frames.TICKET_HEADER.encode()
_LINE_END: Final = b"\r\n"
_KEY_BYTES: Final = 24
_FORMS_MAX: Final = 64


class Petition(Struct, frozen=True, gc=False):
    """What a knock asks for: to be let in with this credential, perhaps in the slot of a ticket."""

    token: str
    ticket: str


def scan_head(head: bytes) -> Petition | None:
    """Read a complete head.

    Returns:
        The petition, or None if the full parser should look.
    """
    if _shape(head) is None:
        return None
    folded = head.lower()
    for line in _ONCE:
        if line not in folded:
            return None
    for name in _NAMES:
        if folded.count(name) != 1:
            return None
    if _value(head, folded, _SUBPROTOCOL) != _OURS or _key(_value(head, folded, _KEY)) is None:
        return None
    if _BODY[0] in folded or _BODY[1] in folded or folded.count(_CREDENTIAL) != 1:
        return None
    credential = _value(head, folded, _CREDENTIAL)
    scheme, token = credential[: len(_SCHEME)], credential[len(_SCHEME) :]
    tickets = folded.count(_TICKET)
    if scheme.lower() != _SCHEME or token.translate(None, _TOKEN_BYTES) or tickets > 1:
        return None
    ticket = _value(head, folded, _TICKET).strip(b" ").decode() if tickets else ""
    return Petition(token.decode(), ticket)


class HeadScanner:
    """`scan_head` with a memory for forms it has found plain."""

    def __init__(self) -> None:
        self._forms: set[tuple[bytes, ...]] = set()

    def __len__(self) -> int:
        """Forms remembered."""
        return len(self._forms)

    def scan(self, head: bytes) -> Petition | None:
        """As `scan_head`."""
        # What is cut out can hold no line end, so a head of a known form is as long as it should
        # be and has each of the three where that form had it.
        before, _, rest = head.partition(_CREDENTIAL_LINE)
        line_end = rest.find(_LINE_END)
        token, after = rest[:line_end], rest[line_end:]
        start, _, rest = before.partition(_KEY_LINE)
        between, shown, last = after.partition(_TICKET_LINE)
        ticket, _, end = last.partition(_LINE_END)
        form = (start, rest[_KEY_BYTES:], between, shown, end)
        if (
            form in self._forms
            and _key(rest[:_KEY_BYTES])
            and not token.translate(None, _TOKEN_BYTES)
            and not ticket.translate(None, _TOKEN_BYTES)
        ):
            return Petition(token.decode(), ticket.decode())
        petition = scan_head(head)
        if petition == Petition(token.decode("latin-1"), ticket.decode("latin-1")):
            if len(self._forms) >= _FORMS_MAX:
                self._forms.clear()
            self._forms.add(form)
        return petition


def _value(head: bytes, folded: bytes, name: bytes) -> bytes:
    start = folded.index(name) + len(name)
    return head[start : head.index(b"\r\n", start)]
