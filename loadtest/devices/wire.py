"""Lean device connections for load: as little CPU a message as Python allows.

The generator shares its machine with what it measures, so frames are built once and acks are
counted, not parsed. Each connection keeps a window of messages in flight and refills it with one
WebSocket frame for whatever was acknowledged. Masking keys are zero: the server unmasks all the
same.
"""

import asyncio
import re
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Protocol, cast

_ACK: Final = re.compile(rb'\{"ack":(\d+),"credit":(\d+)\}')
_NATS_REPLY: Final = b'"stream":'
_HANDSHAKE_KEY: Final = b"dGhlIHNhbXBsZSBub25jZQ=="
PAYLOAD: Final = (
    b'{"soc":71.5,"speed":42.1,"lat":52.5163,"lon":13.3777,"odo":123456,"state":"driving","f":[]}'
)


def masked_frame(opcode: int, payload: bytes) -> bytes:
    """A client's frame with a zero masking key."""
    size = len(payload)
    if size < 126:  # RFC 6455 section 5.2
        return struct.pack("!BBI", 0x80 | opcode, 0x80 | size, 0) + payload
    if size < 65_536:  # as above
        return struct.pack("!BBHI", 0x80 | opcode, 0xFE, size, 0) + payload
    return struct.pack("!BBQI", 0x80 | opcode, 0xFF, size, 0) + payload


def frames_in(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Complete server frames at the front of `data`: opcode, payload, where the next begins."""
    position = 0
    while len(data) - position >= 2:  # the shortest frame
        opcode, size = data[position] & 0x0F, data[position + 1]
        start = position + 2
        if size >= 126:  # RFC 6455 section 5.2
            width = 2 if size == 126 else 8  # as above
            size = int.from_bytes(data[start : start + width], "big")
            start += width
        if len(data) < start + size:
            return
        position = start + size
        yield opcode, data[start:position], position


def handshake_request(token: bytes, ticket: str | None = None) -> bytes:
    """The opening handshake of a device."""
    shown = f"Tidegate-Ticket: {ticket}\r\n".encode() if ticket else b""
    return (
        b"GET /v1/device HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: tidegate.v1\r\nAuthorization: Bearer %s\r\n%s\r\n"
        % (_HANDSHAKE_KEY, token, shown)
    )


class Flow(Protocol):
    """What a device keeps in flight, and who counts it."""

    window: int

    def acked(self, count: int, waited_s: float) -> None:
        """`count` messages were acknowledged, the last of them after `waited_s`."""


class WireDevice(asyncio.Protocol):
    """A connection that is opened, greets, and then keeps its window full."""

    def __init__(self, name: str, flow: Flow, on_ready: Callable[[], None]) -> None:
        self.name = name
        self._flow = flow
        self._on_ready = on_ready
        self._buffer = b""
        self._upgraded = False
        self._sent = 0
        self._acked = 0
        self._marks: deque[tuple[int, float]] = deque()
        self.transport: asyncio.Transport | None = None
        self.lost = False
        self.refusal = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._request())

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.lost = True

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        if not self._upgraded:
            end = data.find(b"\r\n\r\n")
            if end < 0 or not data.startswith(b"HTTP/1.1 101"):
                self._buffer = data
                self.refusal = data
                return
            self._upgraded = True
            assert self.transport is not None
            self.transport.write(self._greeting())
            data = data[end + 4 :]
        position = 0
        for opcode, payload, position in frames_in(data):  # noqa: B007  # the last one is used
            if opcode == 9:  # ping
                assert self.transport is not None
                self.transport.write(masked_frame(10, payload))
            else:
                self._heard(payload)
        self._buffer = data[position:]

    def fill(self, count: int) -> None:
        """Send `count` more messages in one frame."""
        if count <= 0 or self.transport is None:
            return
        first = self._sent + 1
        self._sent += count
        self._marks.append((self._sent, time.perf_counter()))
        self.transport.write(self._encode(first, count))

    def top_up(self) -> None:
        """Send what the window has room for."""
        self.fill(self._room())

    def _settled(self, total: int) -> None:
        count = total - self._acked
        if count <= 0:
            return
        self._acked = total
        began = None
        while self._marks and self._marks[0][0] <= total:
            began = self._marks.popleft()[1]
        waited_s = time.perf_counter() - began if began is not None else -1.0
        self._flow.acked(count, waited_s)
        self.top_up()

    def _room(self) -> int:
        return self._flow.window - (self._sent - self._acked)

    def _request(self) -> bytes:
        raise NotImplementedError

    def _greeting(self) -> bytes:
        raise NotImplementedError

    def _encode(self, first: int, count: int) -> bytes:
        raise NotImplementedError

    def _heard(self, payload: bytes) -> None:
        raise NotImplementedError


class GatewayDevice(WireDevice):
    """Speaks tidegate.v1: array frames, cumulative acks, credit."""

    def __init__(self, name: str, flow: Flow, on_ready: Callable[[], None], token: str) -> None:
        super().__init__(name, flow, on_ready)
        self._token = token
        self._limit = 0

    def _request(self) -> bytes:
        return handshake_request(self._token.encode())

    def _greeting(self) -> bytes:
        return masked_frame(1, b'{"hello":{"outbox":"load","oldest":1}}')

    def _encode(self, first: int, count: int) -> bytes:
        messages = b",".join(
            b'{"seq":%d,"type":"battery.low","data":%s}' % (seq, PAYLOAD)
            for seq in range(first, first + count)
        )
        return masked_frame(1, messages if count == 1 else b"[%s]" % messages)

    def _heard(self, payload: bytes) -> None:
        if payload.startswith(b'{"ack"'):
            found = _ACK.match(payload)
            assert found is not None
            acked, credit = int(found[1]), int(found[2])
            self._limit = acked + credit
            self._settled(acked)
        elif payload.startswith(b'{"welcome"'):
            found = re.search(rb'"credit":(\d+)', payload)
            assert found is not None
            self._limit = int(found[1])
            self._on_ready()

    def _room(self) -> int:
        return min(super()._room(), self._limit - self._sent)


class NatsDevice(WireDevice):
    """Publishes to JetStream itself over nats-server's WebSocket, each message with its id."""

    def __init__(self, name: str, flow: Flow, on_ready: Callable[[], None]) -> None:
        super().__init__(name, flow, on_ready)
        self._inbox = b"_INBOX.%s" % name.encode()
        self._greeted = False
        self._tail = b""

    def _request(self) -> bytes:
        return (
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n" % _HANDSHAKE_KEY
        )

    def _greeting(self) -> bytes:
        connect = b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\n'
        return masked_frame(2, connect + b"SUB %s 1\r\nPING\r\n" % self._inbox)

    def _encode(self, first: int, count: int) -> bytes:
        name = self.name.encode()
        commands = []
        for seq in range(first, first + count):
            headers = b"NATS/1.0\r\nNats-Msg-Id:default:%s:load:%d\r\n\r\n" % (name, seq)
            commands.append(
                b"HPUB events.default.%s.battery.low %s %d %d\r\n%s%s\r\n"
                % (
                    name,
                    self._inbox,
                    len(headers),
                    len(headers) + len(PAYLOAD),
                    headers,
                    PAYLOAD,
                )
            )
        return masked_frame(2, b"".join(commands))

    def _heard(self, payload: bytes) -> None:
        if not self._greeted and b"PONG" in payload:
            self._greeted = True
            self._on_ready()
        # A frame may end in the middle of an answer.
        text = self._tail + payload
        self._tail = text[1 - len(_NATS_REPLY) :]
        acks = text.count(_NATS_REPLY)
        if acks:
            self._settled(self._acked + acks)
        if payload.endswith(b"PING\r\n") and self.transport is not None:
            self.transport.write(masked_frame(2, b"PONG\r\n"))
