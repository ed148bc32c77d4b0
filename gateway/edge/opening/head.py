"""The raw scan of a request head: enough to refuse a knock within microseconds.

The scan reads only heads of the plainest form. Anything unusual (a repeated header, a folded line,
a query, a lower-case method) is left to the full parser (`handshake.py`). It also judges the heads
of all connections that are admitted, or one of their form (`known_heads.py`). So the scan can save
work, and cannot admit a head that it misreads. The full parser accepts what the scan accepts, with
the same petition; `make fuzz-heads` looks for a counter-example.

In a storm, a few client programs knock thousands of times. Their heads are the same bytes except
for key, credential and ticket. `HeadScanner` remembers what is left when these three are cut out
(`cut_head`), and reads the next head of that form by cutting alone.
"""

import re
from typing import Final

from gateway.edge.opening.petition import Petition
from tidegate.wire import frames

_shape = re.compile(
    # Exactly our request line, then well-formed header lines (RFC 9112 section 5), then the end.
    rb"GET %b HTTP/1\.1\r\n(?:[!#$%%&'*+.^_`|~0-9A-Za-z-]+:[\x20-\x7e]*\r\n){1,64}\r\n"
    % re.escape(frames.PATH.encode())
).fullmatch
_SCHEME: Final = b" bearer "
_TOKEN_BYTES: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
"""The bytes of a JWT in compact form (RFC 7515 section 3.1)."""

_ONCE: Final = (
    b"\r\nupgrade: websocket\r\n",
    b"\r\nconnection: upgrade\r\n",
    b"\r\nsec-websocket-version: 13\r\n",
    b"\r\nsec-websocket-protocol: %b\r\n" % frames.SUBPROTOCOL.encode(),
)
"""Lines of the plainest handshake (RFC 6455 section 4.1). Each name may come once."""
_KEY: Final = b"\r\nsec-websocket-key:"
is_key = re.compile(rb" ?[A-Za-z0-9+/]{22}==").fullmatch  # 16 bytes in base64
_NAMES: Final = (*(line[: line.index(b":") + 1] for line in _ONCE), _KEY)
_BODY: Final = (b"\r\ncontent-length:", b"\r\ntransfer-encoding:")
_SUBPROTOCOL: Final = b"\r\nsec-websocket-protocol:"
_OURS: Final = b" %b" % frames.SUBPROTOCOL.encode()
"""The only one of these values in which case matters."""
_CREDENTIAL: Final = b"\r\nauthorization:"
_TICKET: Final = b"\r\n%b:" % frames.TICKET_HEADER.lower().encode()


# As the well-known clients write them. A head that writes them otherwise is scanned each time.
_KEY_LINE: Final = b"\r\nSec-WebSocket-Key: "
_CREDENTIAL_LINE: Final = b"\r\nAuthorization: Bearer "
_TICKET_LINE: Final = b"\r\n%b: " % frames.TICKET_HEADER.encode()
_LINE_END: Final = b"\r\n"
_KEY_BYTES: Final = 24
_FORMS_MAX: Final = 64


def cut_head(head: bytes) -> tuple[tuple[bytes, ...], bytes, bytes, bytes]:
    """Cut key, credential and ticket out of a complete head.

    Two heads of the same form differ in these three only, if those are what `is_key` and
    `is_token_text` accept: none of them can hold a line end, so a head of that form has each part
    in the same line.

    Returns:
        The form, which is what is left, then key, credential and ticket. They are empty, or
        anything, where the head does not have them in the lines of the well-known clients.
    """
    before, _, rest = head.partition(_CREDENTIAL_LINE)
    line_end = rest.find(_LINE_END)
    token, after = rest[:line_end], rest[line_end:]
    start, _, rest = before.partition(_KEY_LINE)
    between, shown, last = after.partition(_TICKET_LINE)
    ticket, _, end = last.partition(_LINE_END)
    return (start, rest[_KEY_BYTES:], between, shown, end), rest[:_KEY_BYTES], token, ticket


def is_token_text(text: bytes) -> bool:
    """Whether a credential or a ticket is made of the bytes of a JWT only. It may be empty."""
    return not text.translate(None, _TOKEN_BYTES)


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
    if _value(head, folded, _SUBPROTOCOL) != _OURS or is_key(_value(head, folded, _KEY)) is None:
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
    """`scan_head` with a memory of the forms that it has found plain."""

    def __init__(self) -> None:
        self._forms: set[tuple[bytes, ...]] = set()

    def __len__(self) -> int:
        """Forms remembered."""
        return len(self._forms)

    def scan(self, head: bytes) -> Petition | None:
        """Read a complete head, as `scan_head` does."""
        form, key, token, ticket = cut_head(head)
        if form in self._forms and is_key(key) and is_token_text(token + ticket):
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
