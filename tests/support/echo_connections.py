"""Connections of the edge with real sockets, whose handler sends back what it hears."""

import asyncio
import contextlib
import math
import random
import struct
from functools import partial

import pytest

from gateway.edge.connection.context import ConnectionContext, ConnectionLimits
from gateway.edge.connection.ending import endings
from gateway.edge.listening.connector import Connector
from gateway.edge.listening.listener import Listener
from gateway.edge.observer import EdgeObserver
from gateway.edge.opening.anteroom import Anteroom
from gateway.edge.opening.opening import Opening
from gateway.edge.wheel import TimingWheel
from support.in_memory import IDENTITY
from support.waiting import eventually, within
from tidegate.wire import frames
from tidegate.wire.errors import FrameError

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Echo:
    deadline = math.inf

    def __init__(self, rig):
        self.rig = rig

    def opened(self, connection):
        self.connection = connection
        self.rig.opened.append(self)

    def received_text(self, text):
        try:
            frames.check_utf8(text)
        except FrameError as exc:
            self.connection.fail(frames.CLOSE_INVALID_DATA, "{}", exc.error)
        else:
            self.connection.send_text(text)

    def received_binary(self, data):
        self.rig.binary.append(data)

    def on_deadline(self, now):
        self.rig.deadlines.append(now)

    def on_lull(self):
        self.rig.keepalives += 1

    def closed(self, cause, code):
        self.rig.causes.append(cause)


class Recording(EdgeObserver):
    def __init__(self):
        self.refusals = []

    def refused(self, error, reason):
        self.refusals.append((error, reason))


class Rig:
    def __init__(self):
        self.opened, self.binary, self.causes, self.deadlines = [], [], [], []
        self.keepalives = 0
        self.connections = set()
        self.observer = Recording()
        self.refuse = None

    def arrived(self, connection, *, anonymous):
        self.connections.add(connection)

    def left(self, connection):
        self.connections.discard(connection)

    def decide(self, petition, address, visitor):
        if self.refuse is not None:
            raise self.refuse
        return IDENTITY

    def hung_up(self, visitor):
        pass


@pytest.fixture
async def serve():
    failures = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, found: failures.append(found))
    async with contextlib.AsyncExitStack() as stack:

        async def start(extensions=None, tls=None, **limits):
            rig = Rig()
            loop = asyncio.get_running_loop()
            wheel = TimingWheel(loop, tick_s=0.01)
            context = ConnectionContext(
                gate=rig,
                make_handler=lambda _identity: Echo(rig),
                limits=ConnectionLimits(**limits),
                wheel=wheel,
                observer=rig.observer,
                rng=random.Random(1),
                loop=loop,
                endings=endings(loop, 0.001),
                extensions=extensions,
            )
            connector = Connector(
                partial(Opening, context),
                slice_s=0.001,
                tls=lambda: tls,
                tls_handshake_timeout_s=5,
                anteroom=Anteroom(places=100, observer=rig.observer),
                observer=rig.observer,
            )
            listener = Listener(
                connector,
                accept_budget=8,
                accept_slice_s=0.001,
                observer=rig.observer,
            )
            rig.port = await listener.start("127.0.0.1", 0, 128)
            rig.url = f"ws://127.0.0.1:{rig.port}/"

            async def stop():
                await listener.stop()
                for connection in list(rig.connections):
                    connection.abort("stopped")
                await eventually(lambda: not rig.connections)
                wheel.close()

            stack.push_async_callback(stop)
            return rig

        yield start
    assert failures == [], "the loop caught what a callback let through"


class Wire:
    """A client that writes bytes."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    def send(self, data):
        self.writer.write(data)

    async def handshake(self):
        self.send(HANDSHAKE)
        head = await within(self.reader.readuntil(b"\r\n\r\n"))
        assert head.startswith(b"HTTP/1.1 101")

    async def frame(self):
        first, second = await within(self.reader.readexactly(2))
        size = second
        if size == 126:
            (size,) = struct.unpack("!H", await self.reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
        return first & 15, await within(self.reader.readexactly(size))

    async def close_code(self):
        """The code of the close frame; other frames are passed over."""
        while True:
            opcode, payload = await self.frame()
            if opcode == 8:
                return struct.unpack("!H", payload[:2])[0]

    async def end(self):
        return await within(self.reader.read())


@contextlib.asynccontextmanager
async def wire(rig, handshake=True):
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    raw = Wire(reader, writer)
    try:
        if handshake:
            await raw.handshake()
        yield raw
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def masked(opcode, payload=b"", fin=True, rsv=0, size=None):
    length = len(payload) if size is None else size
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if length < 126:
        head += bytes([128 | length])
    elif length < 65536:
        head += bytes([128 | 126]) + struct.pack("!H", length)
    else:
        head += bytes([128 | 127]) + struct.pack("!Q", length)
    return head + bytes(4) + payload
