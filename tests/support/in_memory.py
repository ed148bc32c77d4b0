"""An open connection on a socket in memory, with time that only a test moves."""

import math
import random

from gateway.admission.credential import Identity
from gateway.edge.connection.context import ConnectionContext, ConnectionLimits
from gateway.edge.connection.side_traffic import SideBudget
from gateway.edge.observer import EdgeObserver
from gateway.edge.opening.opening import Opening

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SIZE_MAX = 70_000
IDENTITY = Identity("veh-1", "default", "", urgent=False, jti="", expires_at=2**40)
UNBOUNDED = SideBudget(frames_per_s=1e9, frames_burst=10**9, bytes_per_s=1e9, bytes_burst=10**9)


class Transport:
    """A socket in memory."""

    def __init__(self):
        self.written = bytearray()
        self.reading = True
        self.eof = self.aborted = self.closed = False
        self.protocol = None
        self.unsent = 0

    def get_write_buffer_size(self):
        return self.unsent

    def set_protocol(self, protocol):
        self.protocol = protocol

    def set_write_buffer_limits(self, high):
        pass

    def get_extra_info(self, _name):
        return None

    def can_write_eof(self):
        return True

    def write(self, data):
        assert not self.eof, "nothing is written after the end"
        self.written += data

    def write_eof(self):
        assert not self.eof
        self.eof = True

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    def abort(self):
        self.aborted = True

    def close(self):
        self.closed = True


class Loop:
    """The time, and what is called soon."""

    def __init__(self):
        self.now = 0.0
        self.soon = []

    def time(self):
        return self.now

    def call_soon(self, callback):
        self.soon.append(callback)


class AtOnce:
    """Takes the place of the queue in which ends of connections wait for their turn."""

    def add(self, ending):
        ending.hang_up()


class Wheel:
    def __init__(self):
        self.due_at = math.inf

    def schedule(self, _deadline, due_at):
        self.due_at = due_at

    def cancel(self, _deadline):
        self.due_at = math.inf


class Listening:
    """A handler that notes what it is told."""

    deadline = math.inf

    def __init__(self):
        self.heard = []

    def opened(self, connection):
        pass

    def received_text(self, text):
        self.heard.append(text)

    def received_binary(self, data):
        self.heard.append((data,))

    def on_lull(self):
        pass

    def closed(self, cause, code):
        self.heard.append(cause)


class Line:
    """The connection, and all that was heard and said on it."""

    def __init__(self, side=None, handler=None, frame_bytes_max=SIZE_MAX, endings=None, **limits):
        self.loop, self.wheel, self.handler = Loop(), Wheel(), handler or Listening()
        self.transport = Transport()
        context = ConnectionContext(
            gate=self,
            make_handler=lambda _identity: self.handler,
            limits=ConnectionLimits(
                frame_bytes_max=frame_bytes_max,
                side=side or SideBudget(),
                keepalive_interval_s=1e9,
                **limits,
            ),
            wheel=self.wheel,
            observer=EdgeObserver(),
            rng=random.Random(1),
            loop=self.loop,
            endings=AtOnce() if endings is None else endings,
        )
        opening = Opening(context)
        opening.connection_made(self.transport)
        opening.data_received(HANDSHAKE)
        self.connection = self.transport.protocol
        assert self.connection.is_open
        self.transport.written.clear()

    def arrived(self, connection, *, anonymous):
        pass

    def left(self, connection):
        pass

    def decide(self, *_):
        return IDENTITY

    def feed(self, *segments):
        for segment in segments:
            if self.transport.reading:
                self.connection.data_received(segment)

    def sleep(self, seconds):
        """Time passes, and deadlines are met."""
        end = self.loop.now + seconds
        while self.wheel.due_at <= end and not self.transport.aborted:
            self.loop.now = max(self.loop.now, self.wheel.due_at)
            self.wheel.due_at = math.inf
            self.connection.on_due(self.loop.now)
            while self.loop.soon:
                self.loop.soon.pop(0)()
        self.loop.now = end

    @property
    def outcome(self):
        """All that was heard and said, and how it ended."""
        return self.handler.heard, bytes(self.transport.written), self.transport.eof

    def end(self):
        self.connection.connection_lost(None)
