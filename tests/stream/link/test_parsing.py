"""The parser of bulk reading delivers what nats-py's own parser delivers, however TCP cuts it."""

import random

import pytest
from nats.protocol.parser import Parser

from gateway.stream.link.parsing import BulkParser
from support.nats_traffic import (
    LARGE,
    RAW,
    TRAFFIC,
    Client,
    bulk,
    cut,
    delivered,
    with_headers,
)


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
