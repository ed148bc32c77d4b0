"""The reader against a real nats-server that dies, forgets and is cut off."""

import asyncio
import random
from contextlib import asynccontextmanager

import nats
import pytest
from nats.js.api import StreamConfig

from gateway.stream.errors import StreamMissing
from gateway.stream.link.client import LinkClient
from gateway.stream.link.dialing import NatsAddress
from gateway.stream.link.link import NatsLink
from gateway.stream.provisioning import inspection
from gateway.stream.reading.reader import StartAt, StreamReader
from support.eventstream import add_stream
from support.servers import NatsServer, nats_server
from support.waiting import within


@pytest.fixture
def server(tmp_path):
    with nats_server(tmp_path / "nats") as running:
        yield running


@asynccontextmanager
async def linked(server: NatsServer):
    async def on_up(_client):
        pass

    address = NatsAddress((server.url,), reconnect_wait_s=0.01, reconnect_wait_max_s=0.05)
    link = NatsLink(
        address,
        name="reader",
        on_up=on_up,
        on_ready=lambda _client: None,
        on_down=lambda: None,
        on_failure=lambda _failure: None,
        rng=random.Random(1),
    )
    link.start()
    yield link
    await link.stop()


@asynccontextmanager
async def reading(link, subjects=("events.>",), start=1, room=100):
    async def begin(_client, accepted):
        return StartAt(max(start, accepted + 1))

    reader = StreamReader(
        link,
        "EVENTS",
        subjects,
        start=begin,
        make=lambda subject, _headers, data, seq, _ns: (seq, subject, data),
        room_messages=room,
        room_bytes=1 << 20,
        rng=random.Random(2),
    )
    task = asyncio.create_task(reader.run())
    yield reader
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def publish(server, count, first=0, subject="events.default.veh-1.t"):
    client = await nats.connect(server.url)
    jetstream = client.jetstream()
    for number in range(first, first + count):
        await jetstream.publish(subject, str(number).encode(), headers={"n": str(number)})
    await client.close()


async def make_stream(server, **more):
    client = await nats.connect(server.url)
    config = StreamConfig("EVENTS", subjects=["events.>"], **more)
    await add_stream(client.jetstream(), config)
    await client.close()


async def taken(reader, count):
    got = []
    while len(got) < count:
        await within(reader.arrived.wait())
        got += reader.take(1_000, 1 << 20)
    return [int(data) for _seq, _subject, data in got]


async def test_every_message_comes_once_and_in_order_through_a_small_room(server):
    await make_stream(server)
    await publish(server, 500)
    async with linked(server) as link, reading(link, room=20) as reader:
        got = []
        while len(got) < 500:
            await within(reader.arrived.wait())
            assert len(reader) <= 20
            got += reader.take(7, 1 << 20)
        assert [int(data) for _, _, data in got] == list(range(500))
        assert reader.pending == 0
        await publish(server, 3, first=500)
        assert await taken(reader, 3) == [500, 501, 502]


async def test_it_begins_where_it_is_told(server):
    await make_stream(server)
    await publish(server, 10)
    async with linked(server) as link, reading(link, start=8) as reader:
        assert await taken(reader, 3) == [7, 8, 9]


async def test_the_server_applies_the_filters(server):
    await make_stream(server)
    for subject in ("events.a.d.x", "events.a.d.y", "events.a.d.z.deep", "events.a.d.z"):
        await publish(server, 1, subject=subject)
    wanted = ("events.*.*.x", "events.*.*.z.>")
    async with linked(server) as link, reading(link, wanted) as reader:
        await taken(reader, 2)
        assert reader.accepted == 3


async def test_a_server_that_restarts_before_the_first_message_loses_nothing(server):
    await make_stream(server)
    async with linked(server) as link, reading(link) as reader:
        await within(reader.begun.wait())
        server.kill()
        server.start()
        await publish(server, 5)
        assert await taken(reader, 5) == list(range(5))


async def test_a_server_that_is_killed_again_and_again_loses_and_repeats_nothing(server):
    await make_stream(server)
    await publish(server, 300)
    async with linked(server) as link, reading(link, room=50) as reader:
        got = []
        for _ in range(3):
            got += await taken(reader, 40)
            server.kill()
            server.start()
        got += await taken(reader, 300 - len(got))
        assert got == list(range(300))
        assert reader.renewed >= 1


async def test_a_consumer_that_somebody_deletes_is_made_anew(server):
    await make_stream(server)
    async with linked(server) as link, reading(link) as reader:
        await within(reader.begun.wait())
        client = await link.wait_up()
        (consumer,) = await client.jetstream().consumers_info("EVENTS")
        await client.jetstream().delete_consumer("EVENTS", consumer.name)
        await publish(server, 3)
        assert await taken(reader, 3) == [0, 1, 2]
        assert reader.renewed == 1


async def test_a_lost_message_shows_as_a_gap_and_is_read_again(server, monkeypatch):
    await make_stream(server)
    subscribe, dropped = LinkClient.subscribe_raw, []

    async def losing(client, inbox, passed):
        def hear(subject, reply, data, headers):
            if data == b"2" and not dropped:
                dropped.append(data)
            else:
                passed(subject, reply, data, headers)

        return await subscribe(client, inbox, hear)

    monkeypatch.setattr(LinkClient, "subscribe_raw", losing)
    async with linked(server) as link, reading(link) as reader:
        await within(reader.begun.wait())
        await publish(server, 5)
        assert await taken(reader, 5) == list(range(5))
        assert dropped


async def test_what_start_raises_ends_the_reading(server):
    await make_stream(server)

    async def refuse(_client, _accepted):
        raise StreamMissing("gone")

    async with linked(server) as link:
        reader = StreamReader(
            link, "EVENTS", ["events.>"], start=refuse, make=lambda *each: each,
            room_messages=1, room_bytes=1, rng=random.Random(1),
        )  # fmt: skip
        with pytest.raises(StreamMissing):
            await within(reader.run())


async def test_nothing_is_left_on_the_server(server):
    await make_stream(server)
    async with linked(server) as link:
        async with reading(link) as reader:
            await within(reader.begun.wait())
        client = await link.wait_up()
        assert await client.jetstream().consumers_info("EVENTS") == []


async def test_a_stream_made_anew_has_another_creation_time(server):
    await make_stream(server)
    await publish(server, 3)
    client = await nats.connect(server.url)
    before = await inspection.stream_facts(client, "EVENTS")
    assert (before.first_seq, before.last_seq, before.messages) == (1, 3, 3)
    await client.jetstream().publish("events.x", b"", headers={"Nats-Msg-Id": "a:b:c:4"})
    assert await inspection.message_id_at(client, "EVENTS", 4) == "a:b:c:4"
    assert await inspection.message_id_at(client, "EVENTS", 1) == ""
    assert await inspection.message_id_at(client, "EVENTS", 9) is None
    await client.jetstream().delete_stream("EVENTS")
    with pytest.raises(StreamMissing):
        await inspection.stream_facts(client, "EVENTS")
    with pytest.raises(StreamMissing):
        await inspection.message_id_at(client, "EVENTS", 1)
    await make_stream(server)
    assert (await inspection.stream_facts(client, "EVENTS")).created != before.created
    await client.close()
