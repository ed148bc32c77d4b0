"""The framing path, byte by byte: limits, fragments, keepalive, closing. Handler: an echo."""

import asyncio
import contextlib
import math
import random
import struct
from functools import partial
from http import HTTPStatus

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

from gateway.edge.anteroom import Anteroom
from gateway.edge.connector import Connector
from gateway.edge.context import ConnectionContext, ConnectionLimits, partings
from gateway.edge.errors import Refusal
from gateway.edge.listener import Listener
from gateway.edge.observer import EdgeObserver
from gateway.edge.opening import Opening
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

    def on_keepalive(self):
        self.rig.keepalives += 1

    def closed(self, cause):
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

        async def start(extensions=None, **limits):
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
                partings=partings(loop, 0.001),
                extensions=extensions,
            )
            connector = Connector(
                partial(Opening, context),
                slice_s=0.001,
                tls=lambda: None,
                tls_handshake_timeout_s=5,
                anteroom=Anteroom(places=100, observer=rig.observer),
                observer=rig.observer,
            )
            listener = Listener(
                connector,
                accept_budget=8,
                accept_slice_s=0.001,
                backlog=128,
                observer=rig.observer,
            )
            rig.port = await listener.start("127.0.0.1", 0)
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


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 200_000])
async def test_text_of_every_length_form_comes_back(serve, size):
    rig = await serve()
    async with connect(rig.url, proxy=None, compression=None) as client:
        await client.send("x" * size)
        assert await within(client.recv()) == "x" * size


async def test_fragments_pings_and_byte_by_byte_delivery(serve):
    rig = await serve()
    async with wire(rig) as raw:
        stream = (
            masked(1, b"he", fin=False)
            + masked(9, b"ping")
            + masked(0, b"ll", fin=False)
            + masked(0, b"o")
        )
        for number in range(len(stream)):
            raw.send(stream[number : number + 1])
            await asyncio.sleep(0)
        assert await raw.frame() == (10, b"ping")
        assert await raw.frame() == (1, b"hello")


async def test_a_frame_right_behind_the_handshake_is_heard(serve):
    rig = await serve()
    async with wire(rig, handshake=False) as raw:
        raw.send(HANDSHAKE + masked(1, b"early"))
        await within(raw.reader.readuntil(b"\r\n\r\n"))
        assert await raw.frame() == (1, b"early")


@pytest.mark.parametrize(
    ("data", "code", "cause"),
    [
        (b"\x81\x05hello", 1002, "framing"),  # not masked
        (masked(1, b"x", rsv=4), 1002, "framing"),  # RSV1 without compression
        (masked(1, b"x", rsv=2), 1002, "framing"),
        (masked(1, b"x", rsv=1), 1002, "framing"),
        (masked(3, b"x"), 1002, "framing"),  # reserved opcodes
        (masked(11, b""), 1002, "framing"),
        (masked(0, b"x"), 1002, "framing"),  # continues nothing
        (masked(1, b"x", fin=False) + masked(1, b"y"), 1002, "framing"),  # starts within another
        (masked(9, b"x" * 126), 1002, "framing"),  # a long ping
        (masked(9, b"x", fin=False), 1002, "framing"),  # a ping in pieces
        (masked(8, b"x"), 1002, "framing"),  # a close of one byte
        (masked(8, struct.pack("!H", 1005)), 1002, "framing"),  # a close code that no peer may send
        (masked(1, b"\xff"), 1007, "utf8"),
        (masked(1, b"\xc3", fin=False) + masked(0, b"\x28"), 1007, "utf8"),
        (masked(1, size=1_000_000), 1009, "size"),
        (masked(1, size=2**40), 1009, "size"),  # 64-bit lengths
        (masked(1, size=2**62), 1009, "size"),
        (masked(1, b"x" * 700, fin=False) + masked(0, b"x" * 700), 1009, "size"),
        (masked(1, b"", fin=False) + masked(0, b"", fin=False) * 20, 1008, "fragments"),
    ],
)
async def test_each_framing_offence_has_its_close_code(serve, data, code, cause):
    rig = await serve(frame_bytes_max=1_024, fragments_max=16)
    async with connect(rig.url, proxy=None, compression=None) as bystander, wire(rig) as raw:
        raw.send(data)
        assert await raw.close_code() == code
        raw.writer.write_eof()
        assert await raw.end() == b""
        await eventually(lambda: rig.causes == [cause])
        await bystander.send("still here")
        assert await within(bystander.recv()) == "still here"


async def test_a_length_of_64_bits_with_the_highest_set(serve):
    rig = await serve()
    async with wire(rig) as raw:
        raw.send(b"\x81\xff" + b"\xff" * 8 + bytes(4))
        assert await raw.close_code() in (1002, 1009)


async def test_a_compression_bomb_is_stopped_by_its_inflated_size(serve):
    factory = ServerPerMessageDeflateFactory(
        server_max_window_bits=11, client_max_window_bits=11, require_client_max_window_bits=True
    )
    rig = await serve([factory], frame_bytes_max=65_536)
    async with connect(rig.url, proxy=None, compression="deflate") as client:
        await client.send("x" * 60_000)
        assert len(await within(client.recv())) == 60_000
        await client.send("x" * 50_000_000)
        with pytest.raises(ConnectionClosed) as caught:
            await within(client.recv())
    assert caught.value.rcvd.code == 1009
    assert rig.causes == ["size"]


async def test_half_a_handshake_is_ended_by_its_deadline(serve):
    rig = await serve(head_timeout_s=0.05)
    async with wire(rig, handshake=False) as raw:
        raw.send(HANDSHAKE[:50])
        answer = await raw.end()
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"head_timeout" in answer or b"too long" in answer
    assert rig.observer.refusals == [("bad_request", "head_timeout")]


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 9_000,
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 2_000,
        b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
async def test_a_head_without_end_is_refused_at_its_limit(serve, head):
    rig = await serve(head_bytes_max=8_192)
    async with wire(rig, handshake=False) as raw:
        raw.send(head)
        assert (await raw.end()).startswith(b"HTTP/1.1 400")
    assert rig.observer.refusals == [("bad_request", "head_size")]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),  # TLS to a plain port
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 426),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 400),
        (HANDSHAKE.replace(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""), 400),
        (HANDSHAKE.replace(b": 13", b": 12"), 400),
        (HANDSHAKE.replace(b"Host: x", b"Host: x\r\nbad header"), 400),
        (HANDSHAKE.replace(b"Host: x", b"Host: x\r\n folded: y"), 400),
        (HANDSHAKE.replace(b"Host: x", b"Host: x\x00y"), 400),
    ],
)
async def test_a_request_that_is_no_handshake_gets_an_http_answer(serve, head, status):
    rig = await serve()
    async with wire(rig, handshake=False) as raw:
        raw.send(head)
        assert (await raw.end()).startswith(b"HTTP/1.1 %d " % status)
    assert len(rig.observer.refusals) == 1
    assert rig.opened == []


async def test_a_refusal_is_read_by_a_client_that_writes_on(serve):
    rig = await serve()
    rig.refuse = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "admission", reason="x", retry_ms=5)
    async with wire(rig, handshake=False) as raw:
        raw.send(HANDSHAKE + b"x" * 100_000)
        answer = await raw.end()
    assert b"Tidegate-Retry-After-Ms: 5" in answer


async def test_a_half_open_peer_is_found_and_dropped(serve):
    rig = await serve(keepalive_interval_s=0.05, keepalive_timeout_s=0.05)
    async with wire(rig) as raw:
        assert await raw.frame() == (9, b"")  # and never a pong
        assert await raw.end() == b""
    await eventually(lambda: rig.causes == ["half_open"])


async def test_a_living_peer_is_pinged_again_and_again(serve):
    rig = await serve(keepalive_interval_s=0.04, keepalive_timeout_s=0.04)
    async with connect(rig.url, proxy=None, ping_interval=None, compression=None) as client:
        await eventually(lambda: rig.keepalives >= 5)
        await client.send("x")
        assert await within(client.recv()) == "x"
    await eventually(lambda: rig.causes == ["device"])


async def test_a_peer_that_never_reads_is_dropped(serve):
    rig = await serve(write_buffer_bytes_max=1_000, slow_reader_timeout_s=0.05)
    async with wire(rig) as raw:
        (echo,) = rig.opened
        raw.reader._transport.pause_reading()
        while echo.connection.is_open and not rig.causes:
            echo.connection.send_text(b"x" * 60_000)
            await asyncio.sleep(0.001)
        assert rig.causes == ["slow_reader"]


async def test_a_close_that_is_not_answered_ends_at_its_timeout(serve):
    rig = await serve(close_timeout_s=0.05)
    async with wire(rig) as raw:
        (echo,) = rig.opened
        echo.connection.close(1000, "", "done")
        assert await raw.close_code() == 1000
        assert await raw.end() == b""
    assert rig.causes == ["done"]


@pytest.mark.parametrize(
    "behind", [masked(3), masked(8, struct.pack("!H", 1000)), b"\x81\x05hello"]
)
async def test_a_message_right_before_the_end_is_delivered(serve, behind):
    rig = await serve()
    async with wire(rig) as raw:
        raw.send(masked(1, b"last words") + behind)
        assert await raw.close_code() in (1000, 1002)


async def test_a_close_between_fragments_is_a_close(serve):
    rig = await serve()
    async with wire(rig) as raw:
        raw.send(masked(1, b"x", fin=False) + masked(8, struct.pack("!H", 1000)) + masked(0, b"y"))
        assert await raw.close_code() == 1000
    await eventually(lambda: rig.causes == ["device"])


async def test_nothing_is_sent_after_a_close(serve):
    rig = await serve()
    async with wire(rig) as raw:
        (echo,) = rig.opened
        echo.connection.close(1000, "", "done")
        echo.connection.send_text(b"late")
        echo.connection.close(1001, "", "again")
        assert await raw.close_code() == 1000
        raw.send(masked(8, struct.pack("!H", 1000)))
        assert await raw.end() == b""


async def test_the_handlers_own_deadline(serve):
    rig = await serve()
    async with wire(rig):
        (echo,) = rig.opened
        echo.deadline = asyncio.get_running_loop().time() + 0.02
        echo.connection.touch()
        await eventually(lambda: rig.deadlines)


async def test_a_paused_connection_is_not_read(serve):
    rig = await serve()
    async with connect(rig.url, proxy=None, compression=None) as client:
        await client.send("1")
        assert await within(client.recv()) == "1"
        (echo,) = rig.opened
        echo.connection.pause_reading(2)
        echo.connection.pause_reading(4)
        await client.send("2")
        echo.connection.resume_reading(2)
        pending = asyncio.create_task(client.recv())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not pending.done()
        echo.connection.resume_reading(4)
        assert await within(pending) == "2"


async def test_binary_goes_to_the_handler(serve):
    rig = await serve()
    async with connect(rig.url, proxy=None, compression=None) as client:
        await client.send(b"\x00\xff")
        await eventually(lambda: rig.binary == [b"\x00\xff"])
