"""Connected devices that keep a window of messages in flight: as little CPU a message as possible.

Each refills its window with one WebSocket frame for whatever was acknowledged.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from loadtest.devices.connection import Connection
from loadtest.devices.wire import (
    BINARY,
    PAYLOAD,
    TEXT,
    ack_of,
    handshake_request,
    hello,
    is_welcome,
    masked_frame,
    nats_handshake_request,
    resume_of,
)

_NATS_REPLY: Final = b'"stream":'


class Flow(Protocol):
    """How much a device keeps in flight; counts what is acknowledged."""

    window: int

    def acked(self, count: int, waited_s: float) -> None:
        """`count` messages were acknowledged, the last of them after `waited_s`."""


class Sender(Connection):
    """A connection that is opened, greets, and then keeps its window full."""

    def __init__(self, name: str, flow: Flow, on_ready: Callable[[], None]) -> None:
        """
        Args:
            name: of the device.
            flow: window and counter, shared by the devices of a fleet.
            on_ready: called once the device may send.
        """
        super().__init__()
        self.name = name
        self._flow = flow
        self._on_ready = on_ready
        self._sent = 0
        self._acked = 0
        self._marks: deque[tuple[int, float]] = deque()
        self.gone = False
        self.refusal = b""

    def refused(self, response: bytes) -> None:
        self.refusal = response

    def lost(self) -> None:
        self.gone = True

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

    def _encode(self, first: int, count: int) -> bytes:
        raise NotImplementedError


class GatewayDevice(Sender):
    """Speaks tidegate.v1: array frames, cumulative acks, credit."""

    def __init__(self, name: str, flow: Flow, on_ready: Callable[[], None], token: str) -> None:
        super().__init__(name, flow, on_ready)
        self._token = token
        self._limit = 0

    def request(self) -> bytes:
        return handshake_request(self._token.encode())

    def greeting(self) -> bytes:
        return hello("load")

    def heard(self, payload: bytes) -> None:
        settled = ack_of(payload)
        if settled is not None:
            acked, credit = settled
            self._limit = acked + credit
            self._settled(acked)
        elif is_welcome(payload):
            _seq, self._limit = resume_of(payload)
            self._on_ready()

    def _encode(self, first: int, count: int) -> bytes:
        messages = b",".join(
            b'{"seq":%d,"type":"battery.low","data":%s}' % (seq, PAYLOAD)
            for seq in range(first, first + count)
        )
        return masked_frame(TEXT, messages if count == 1 else b"[%s]" % messages)

    def _room(self) -> int:
        return min(super()._room(), self._limit - self._sent)


class NatsDevice(Sender):
    """Publishes to JetStream itself over nats-server's WebSocket, each message with its id."""

    def __init__(self, name: str, flow: Flow, on_ready: Callable[[], None]) -> None:
        super().__init__(name, flow, on_ready)
        self._inbox = b"_INBOX.%s" % name.encode()
        self._greeted = False
        self._tail = b""

    def request(self) -> bytes:
        return nats_handshake_request()

    def greeting(self) -> bytes:
        connect = b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\n'
        return masked_frame(BINARY, connect + b"SUB %s 1\r\nPING\r\n" % self._inbox)

    def heard(self, payload: bytes) -> None:
        if not self._greeted and b"PONG" in payload:
            self._greeted = True
            self._on_ready()
        # A frame may end in the middle of an answer.
        text = self._tail + payload
        self._tail = text[1 - len(_NATS_REPLY) :]
        acks = text.count(_NATS_REPLY)
        if acks:
            self._settled(self._acked + acks)
        if payload.endswith(b"PING\r\n"):
            self.write(masked_frame(BINARY, b"PONG\r\n"))

    def _encode(self, first: int, count: int) -> bytes:
        name = self.name.encode()
        return masked_frame(
            BINARY,
            b"".join(
                nats_publish(name, self._inbox, b"load:%d" % seq)
                for seq in range(first, first + count)
            ),
        )


def nats_publish(device: bytes, inbox: bytes, number: bytes) -> bytes:
    """The command that publishes an event as a device of nats-server would.

    Args:
        device: its name.
        inbox: where the PubAck goes.
        number: outbox and seq, which make the message's id.
    """
    headers = b"NATS/1.0\r\nNats-Msg-Id:default:%s:%s\r\n\r\n" % (device, number)
    size = len(headers)
    return b"HPUB events.default.%s.battery.low %s %d %d\r\n%s%s\r\n" % (
        device, inbox, size, size + len(PAYLOAD), headers, PAYLOAD,
    )  # fmt: skip
