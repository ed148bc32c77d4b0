"""Answers are delivered as they are read, by the loop or by a look, and keep their order."""

import asyncio
import contextlib
import random
import socket

import pytest
from nats.protocol.parser import Parser

from gateway.stream.link.direct_reading import DirectReading
from support.nats_traffic import ANSWER, RAW, TRAFFIC, Client, bulk, cut, delivered, with_headers


class Reader(asyncio.Protocol):
    """What nats-py's task reads later, when the test says so."""

    def __init__(self, parser):
        self.parser = parser
        self.waiting = bytearray()

    def data_received(self, data):
        self.waiting += data

    async def read(self):
        data = bytes(self.waiting)
        self.waiting.clear()
        await self.parser.parse(data)


class Transport:
    """Of one side of a pair of sockets; the test plays the loop that polls it."""

    def __init__(self, own, context=None):
        self._info = {"socket": own, "sslcontext": context}
        self.closing = self.paused = False

    def get_extra_info(self, name):
        return self._info[name]

    def is_closing(self):
        return self.closing

    def is_reading(self):
        return not self.paused

    def abort(self):
        self.closing = True


@pytest.fixture
def pair():
    ours, server = socket.socketpair()
    ours.setblocking(False)
    with ours, server:
        yield ours, server


def reading_of(ours=None, context=None):
    client = Client()
    parser = bulk(client)
    reader = Reader(parser)
    return client, reader, DirectReading(reader, parser, Transport(ours, context))


@pytest.mark.parametrize("seed", range(100))
async def test_what_is_delivered_directly_keeps_its_place_behind_what_the_task_reads(seed):
    rng = random.Random(seed)
    stream = b"".join(rng.choices(TRAFFIC, k=rng.randint(1, 12)))
    places = rng.sample(range(len(stream)), min(rng.randint(0, 30), len(stream) - 1))
    client, reader, direct = reading_of()
    for packet in cut(stream, places):
        direct.data_received(packet)
        if rng.random() < 0.5:
            await reader.read()
    await reader.read()
    assert client.heard == await delivered(Parser, [stream])


def test_whole_messages_wake_no_task():
    client, reader, direct = reading_of()
    for packet in (ANSWER, with_headers(RAW, 1, b"{}"), ANSWER[:9], ANSWER[9:]):
        direct.data_received(packet)
    assert not reader.waiting
    assert len(client.heard) == 3


async def test_what_comes_while_the_task_parses_waits_for_it():
    client, reader, direct = reading_of()
    go_on = asyncio.Event()
    client._process_ping = go_on.wait
    direct.data_received(b"PING\r\n" + with_headers(RAW, 1, b"{}"))
    reading = asyncio.create_task(reader.read())
    await asyncio.sleep(0)
    direct.data_received(with_headers(RAW, 2, b"[]"))
    assert client.heard == []
    go_on.set()
    await reading
    await reader.read()
    assert [each[3] for each in client.heard] == [b"{}", b"[]"]


@pytest.mark.parametrize("seed", range(100))
async def test_what_looks_read_keeps_its_place_among_what_the_loop_reads(seed, pair):
    ours, server = pair
    rng = random.Random(seed)
    stream = b"".join(rng.choices(TRAFFIC, k=rng.randint(1, 12)))
    places = rng.sample(range(len(stream)), min(rng.randint(0, 30), len(stream) - 1))
    client, reader, direct = reading_of(ours)
    for packet in cut(stream, places):
        server.sendall(packet)
        for _ in range(rng.randint(0, 2)):
            direct.look()
        if rng.random() < 0.5:
            with contextlib.suppress(BlockingIOError):
                direct.data_received(ours.recv(262_144))
        if rng.random() < 0.5:
            await reader.read()
    direct.look()
    await reader.read()
    assert client.heard == await delivered(Parser, [stream])


def test_a_look_delivers_what_has_come_before_the_loop_polls(pair):
    ours, server = pair
    client, reader, direct = reading_of(ours)
    direct.look()
    assert client.heard == []
    server.sendall(ANSWER * 2)
    direct.look()
    assert len(client.heard) == 2
    assert not reader.waiting


def left_alone(direct, client, ours):
    """Whether a look reads nothing of what has come."""
    direct.look()
    return client.heard == [] and ours.recv(1_000) == ANSWER


def test_a_look_leaves_what_came_over_tls_to_the_loop(pair):
    ours, server = pair
    client, _reader, direct = reading_of(ours, context=object())
    server.sendall(ANSWER)
    assert left_alone(direct, client, ours)


@pytest.mark.parametrize("state", ["closing", "paused"])
def test_a_look_leaves_a_transport_alone_that_does_not_read(pair, state):
    """The descriptor of a closed one may be that of another connection by now."""
    ours, server = pair
    client, _reader, direct = reading_of(ours)
    server.sendall(ANSWER)
    setattr(direct._transport, state, True)
    assert left_alone(direct, client, ours)


def test_the_end_of_the_connection_is_left_to_the_loop(pair):
    ours, server = pair
    client, reader, direct = reading_of(ours)
    server.sendall(ANSWER)
    server.close()
    for _ in range(2):
        direct.look()
    assert len(client.heard) == 1
    assert not reader.waiting
    assert ours.recv(1) == b"", "the loop sees it too"


def test_a_look_out_of_a_handler_does_not_overtake_what_that_one_came_with(pair):
    ours, server = pair
    _client, _reader, direct = reading_of(ours)
    heard = []

    def take(_subject, _reply, data, _headers):
        direct.look()
        heard.append(data)

    direct._parser._handlers[RAW] = take
    server.sendall(with_headers(RAW, 3, b"3"))
    direct.data_received(with_headers(RAW, 1, b"1") + with_headers(RAW, 2, b"2"))
    assert heard == [b"1", b"2"]
    direct.look()
    assert heard == [b"1", b"2", b"3"]


async def test_an_error_while_looking_ends_the_connection_and_is_seen(pair):
    ours, server = pair
    _client, _reader, direct = reading_of(ours)
    seen = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, found: seen.append(found))
    server.sendall(b"MSG _INBOX.x %d eleven\r\n" % RAW)
    direct.look()
    assert [type(found["exception"]) for found in seen] == [ValueError]
    assert direct._transport.closing
