"""The parser of bulk reading delivers what nats-py's own parser delivers, however TCP cuts it."""

import asyncio
import random
from itertools import pairwise

import pytest
from nats.protocol.parser import Parser

from gateway.stream.link.parsing import BulkParser, DirectReading

RAW, OTHER = 7, 8
ACK = b"$JS.ACK.EVENTS.c.1.%d.%d.1764064800000000000.0"
HEADERS = b"NATS/1.0\r\nce-id: o1:1\r\n\r\n"


class Client:
    """Notes what a parser delivers."""

    def __init__(self):
        self.heard = []

    async def _process_msg(self, sid, subject, reply, data, headers):
        self.heard.append((sid, subject, reply, data, headers))

    async def _process_ping(self):
        self.heard.append("ping")

    async def _process_pong(self):
        self.heard.append("pong")

    async def _process_err(self, message):
        self.heard.append(message)


def with_headers(sid, number, payload):
    words = (
        b"events.t.d.x",
        sid,
        ACK % (number, number),
        len(HEADERS),
        len(HEADERS) + len(payload),
    )
    return b"HMSG %b %d %b %d %d\r\n%b%b\r\n" % (*words, HEADERS, payload)


STATUS = b"HMSG _INBOX.x %d 16 16\r\nNATS/1.0 100\r\n\r\n\r\n" % RAW
BARE = b"MSG events.t.d.x %d %b 2\r\n{}\r\n" % (RAW, ACK % (2, 2))
PUBACK = b'MSG _INBOX.y %d 11\r\n{"seq":123}\r\n' % OTHER
ANSWER = b'MSG _INBOX.x %d 11\r\n{"seq":124}\r\n' % RAW
LARGE = with_headers(RAW, 4, b'"HMSG x 7 y 1 1\r\nPING\r\n%b"' % (b"z" * 9_000))
TRAFFIC = [
    with_headers(RAW, 1, b"{}"),
    with_headers(RAW, 2, b""),
    STATUS,
    with_headers(RAW, 3, b'{"a":"\r\nPING\r\n"}'),
    b"PING\r\n",
    with_headers(OTHER, 9, b"[]"),
    BARE,
    LARGE,
    PUBACK,
    ANSWER,
    b"-ERR 'Permissions Violation'\r\n",
    with_headers(RAW, 5, b"7"),
    with_headers(RAW, 6, b"8"),
    b"+OK\r\n",
    b"PONG\r\n",
]


async def delivered(make, packets):
    client = Client()
    parser = make(client)
    for packet in packets:
        await parser.parse(packet)
    return client.heard


def bulk(client):
    def take(subject, reply, data, headers):
        client.heard.append((RAW, subject, reply, data, headers))

    return BulkParser(client, {RAW: take})


def cut(stream, places):
    edges = [0, *sorted(places), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


@pytest.mark.parametrize("seed", range(200))
async def test_any_traffic_cut_anywhere_is_delivered_as_nats_py_delivers_it(seed):
    rng = random.Random(seed)
    stream = b"".join(rng.choices(TRAFFIC, k=rng.randint(1, 12)))
    places = rng.sample(range(len(stream)), min(rng.randint(0, 30), len(stream) - 1))
    packets = cut(stream, places)
    assert await delivered(bulk, packets) == await delivered(Parser, packets)


async def test_a_message_cut_at_each_of_its_bytes_is_delivered_once():
    stream = with_headers(RAW, 1, b'{"soc":7}') + with_headers(RAW, 2, b"{}")
    for place in range(len(stream)):
        heard = await delivered(bulk, cut(stream, [place]))
        assert [each[3] for each in heard] == [b'{"soc":7}', b"{}"]


async def test_a_large_message_in_small_packets_is_copied_once_it_is_whole():
    """Not with each packet: a message of 4 MiB comes in hundreds of them."""
    parser = bulk(Client())
    for start in range(0, len(LARGE) - 100, 100):
        await parser.parse(LARGE[start : start + 100])
    assert parser._wanted_bytes == len(LARGE)


async def test_nothing_is_delivered_to_a_subscription_that_is_over():
    client = Client()
    handlers = {RAW: lambda *_: client.heard.append("raw")}
    parser = BulkParser(client, handlers)
    handlers.clear()
    await parser.parse(with_headers(RAW, 1, b"{}"))
    assert [each[0] for each in client.heard] == [RAW]  # nats-py knows what to do with it


async def test_a_reset_forgets_half_a_message():
    client = Client()
    parser = bulk(client)
    await parser.parse(with_headers(RAW, 1, b"{}")[:-5])
    parser.reset()
    await parser.parse(with_headers(RAW, 2, b"[]"))
    assert [each[3] for each in client.heard] == [b"[]"]


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


@pytest.mark.parametrize("seed", range(100))
async def test_what_is_delivered_directly_keeps_its_place_behind_what_the_task_reads(seed):
    rng = random.Random(seed)
    stream = b"".join(rng.choices(TRAFFIC, k=rng.randint(1, 12)))
    places = rng.sample(range(len(stream)), min(rng.randint(0, 30), len(stream) - 1))
    client = Client()
    parser = bulk(client)
    reader = Reader(parser)
    direct = DirectReading(reader, parser)
    for packet in cut(stream, places):
        direct.data_received(packet)
        if rng.random() < 0.5:
            await reader.read()
    await reader.read()
    assert client.heard == await delivered(Parser, [stream])


def test_whole_messages_wake_no_task():
    client = Client()
    parser = bulk(client)
    reader = Reader(parser)
    direct = DirectReading(reader, parser)
    for packet in (ANSWER, with_headers(RAW, 1, b"{}"), ANSWER[:9], ANSWER[9:]):
        direct.data_received(packet)
    assert not reader.waiting
    assert len(client.heard) == 3


async def test_what_comes_while_the_task_parses_waits_for_it():
    client = Client()
    parser = bulk(client)
    reader = Reader(parser)
    direct = DirectReading(reader, parser)
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
