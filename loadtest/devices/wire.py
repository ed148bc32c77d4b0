"""The bytes of a lean device, without a socket: requests, answers and frames.

The generator shares its machine with what it measures, so a frame is built once, an
acknowledgement is found by a regular expression, and masking keys are zero (the server unmasks all
the same). Every shell of this folder uses these functions: those on asyncio, and the one on gevent.
"""

import re
import struct
from collections.abc import Iterator
from typing import Final

CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10
"""Opcodes of RFC 6455 section 5.2."""

PAYLOAD: Final = (
    b'{"soc":71,"speed":42.1,"lat":52.5163,"lon":13.3777,"odo":123456,"state":"driving","f":[]}'
)
"""The `data` of a message where its content does not matter."""

_HANDSHAKE_KEY: Final = b"dGhlIHNhbXBsZSBub25jZQ=="
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3})")
_RETRY: Final = re.compile(rb"Tidegate-Retry-After-Ms: (\d+)")
_TICKET: Final = re.compile(rb"Tidegate-Ticket: ([\w-]+)")
_REASON: Final = re.compile(rb'"reason":"(\w+)"')
_ERROR: Final = re.compile(rb'"error":"(\w+)"')
_ACK: Final = re.compile(rb'\{"ack":(\d+),"credit":(\d+)\}')
_CREDIT: Final = re.compile(rb'"credit":(\d+)')
_RESUME: Final = re.compile(rb'"seq":(\d+)')
_FIRST_RETRY: Final = re.compile(rb'"first_retry_ms":(\d+)')


def masked_frame(opcode: int, payload: bytes) -> bytes:
    """A client's frame with a zero masking key."""
    size = len(payload)
    if size < 126:  # RFC 6455 section 5.2
        return struct.pack("!BBI", 0x80 | opcode, 0x80 | size, 0) + payload
    if size < 65_536:  # as above
        return struct.pack("!BBHI", 0x80 | opcode, 0xFE, size, 0) + payload
    return struct.pack("!BBQI", 0x80 | opcode, 0xFF, size, 0) + payload


def handshake_request(token: bytes, ticket: str | None = None) -> bytes:
    """The opening handshake of a device."""
    shown = f"Tidegate-Ticket: {ticket}\r\n".encode() if ticket else b""
    return (
        b"GET /v1/device HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: tidegate.v1\r\nAuthorization: Bearer %s\r\n%s\r\n"
        % (_HANDSHAKE_KEY, token, shown)
    )


def nats_handshake_request() -> bytes:
    """The opening handshake of nats-server's WebSocket listener."""
    return (
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n" % _HANDSHAKE_KEY
    )


def hello(
    outbox: str, *, sent: int | None = None, state: str | None = None, receipts: bool = False
) -> bytes:
    """The `hello` of an outbox that begins with 1, as a frame.

    Args:
        outbox: its id.
        sent: the highest seq that was sent before; None to leave that out.
        state: the version of the state that the device has; None to ask for no state.
        receipts: whether the device keeps receipts of queued commands.
    """
    more = b"" if sent is None else b',"sent":%d' % sent
    if state is not None:
        more += b',"state":"%b"' % state.encode()
    if receipts:
        more += b',"receipts":true'
    text = b'{"hello":{"outbox":"%b","oldest":1%b}}' % (outbox.encode(), more)
    return masked_frame(TEXT, text)


class Answer:
    """The answer to a knock, as far as a device acts on it."""

    __slots__ = ("reason", "retry_ms", "status", "ticket")

    def __init__(self, response: bytes) -> None:
        """
        Args:
            response: the head, and the body as far as it has come.
        """
        status = _STATUS.match(response)
        reason = _REASON.search(response) or _ERROR.search(response)
        retry, ticket = _RETRY.search(response), _TICKET.search(response)
        self.status = int(status[1]) if status else 0
        """0 if the answer is no HTTP."""
        self.reason = reason[1].decode() if reason else "unknown"
        self.retry_ms = int(retry[1]) if retry else None
        self.ticket = ticket[1].decode() if ticket else None

    def __str__(self) -> str:
        return f"{self.status} {self.reason}"


class Inbound:
    """What a server sends on one connection: the answer to the handshake, then frames.

    Fragmented messages are not put together: neither server sends any.
    """

    __slots__ = ("_buffer", "upgraded")

    def __init__(self) -> None:
        self._buffer = b""
        self.upgraded = False

    def answer(self, data: bytes) -> bytes | None:
        """Take data of the handshake.

        Returns:
            None until the head is whole. Then what has come of the response, if it refuses; an
            empty string once the connection is upgraded.
        """
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        if not self._buffer.startswith(b"HTTP/1.1 101"):
            return self._buffer
        self.upgraded = True
        self._buffer = self._buffer[end + 4 :]
        return b""

    def frames(self, data: bytes = b"") -> Iterator[tuple[int, bytes]]:
        """Opcode and payload of each frame that is complete with this data.

        The caller must take all of them before it gives more data.
        """
        if self._buffer:
            data = self._buffer + data
        position, end = 0, len(data)
        while end - position >= 2:  # the shortest frame
            opcode, size = data[position] & 0x0F, data[position + 1]
            start = position + 2
            if size >= 126:  # RFC 6455 section 5.2
                width = 2 if size == 126 else 8  # as above
                size = int.from_bytes(data[start : start + width], "big")
                start += width
            if end < start + size:
                break
            position = start + size
            yield opcode, data[start:position]
        self._buffer = data[position:]


def is_welcome(text: bytes) -> bool:
    return text.startswith(b'{"welcome"')


def is_hold(text: bytes) -> bool:
    return text.startswith(b'{"hold"')


def ack_of(text: bytes) -> tuple[int, int] | None:
    """What an `ack` settles, and the credit with it; None for another frame."""
    found = _ACK.match(text)
    return (int(found[1]), int(found[2])) if found is not None else None


def resume_of(welcome: bytes) -> tuple[int, int]:
    """The last settled seq and the credit in a `welcome`."""
    seq, credit = _RESUME.search(welcome), _CREDIT.search(welcome)
    assert seq is not None
    assert credit is not None
    return int(seq[1]), int(credit[1])


def first_retry_ms_of(welcome: bytes) -> int | None:
    """The spread of first knocks that a `welcome` names."""
    found = _FIRST_RETRY.search(welcome)
    return int(found[1]) if found is not None else None
