"""What `tidegate tail` reads, also when the connection is lost."""

import asyncio
import contextlib
import json
import random
from datetime import UTC, datetime, timedelta

import nats
import pytest
from nats.js.api import StreamConfig

from gateway.stream.errors import StreamChanged, StreamMissing
from gateway.stream.link.dialing import NatsAddress
from gateway.stream.link.link import NatsLink
from gateway.stream.reading.replay import ReplayFilter, render, replay
from support.eventstream import add_stream
from support.servers import nats_server
from support.waiting import eventually, within

HEADERS = b"NATS/1.0\r\nNats-Msg-Id:x\r\nce-id:box:7\r\nce-time: 2026-11-23T10:00:00Z\r\n\r\n"


class Tail:
    """A replay as a task, and what it has given."""

    def __init__(self, link, wanted, *, follow=True):
        self.lines = []
        self._link, self._wanted, self._follow = link, wanted, follow
        self.task = asyncio.create_task(self._run())

    async def _run(self):
        async for line in replay(
            self._link, self._wanted, follow=self._follow, rng=random.Random(1)
        ):
            self.lines.append(json.loads(line)["data"])

    async def stop(self):
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


@contextlib.asynccontextmanager
async def linked(server):
    async def on_up(_client):
        pass

    link = NatsLink(
        NatsAddress((server.url,), reconnect_wait_s=0.01, reconnect_wait_max_s=0.05),
        name="tail", on_up=on_up, on_ready=lambda _client: None, on_down=lambda: None,
        on_failure=lambda _failure: None, rng=random.Random(1),
    )  # fmt: skip
    link.start()
    try:
        yield link
    finally:
        await link.stop()


async def publish(server, *data, subject="events.default.veh-1.t"):
    client = await nats.connect(server.url)
    jetstream = client.jetstream()
    with contextlib.suppress(nats.js.errors.BadRequestError):
        await jetstream.add_stream(StreamConfig("EVENTS", subjects=["events.>"]))
    for each in data:
        await jetstream.publish(subject, json.dumps(each).encode())
    await client.close()


@pytest.fixture
def server(tmp_path):
    with nats_server(tmp_path / "nats") as running:
        yield running


async def restart(server, link):
    client = link.client
    server.kill()
    await eventually(lambda: link.client is not client)
    server.start()
    await within(link.wait_up())


async def test_without_follow_it_stops_at_the_end_of_the_stream(server):
    await publish(server, 1, 2)
    await publish(server, 3, subject="events.default.veh-2.t")
    async with linked(server) as link:
        for wanted, lines in (
            (ReplayFilter(), [1, 2, 3]),
            (ReplayFilter(device="veh-2"), [3]),
            (ReplayFilter(device="veh-3"), []),
            (ReplayFilter(since=datetime.now(UTC) + timedelta(hours=1)), []),
        ):
            tail = Tail(link, wanted, follow=False)
            await within(tail.task)
            assert tail.lines == lines


async def test_messages_that_do_not_match_are_left_out_and_one_that_is_too_late_ends_it(server):
    await publish(server, 1, 2, 3)
    client = await nats.connect(server.url)
    last = await client.jetstream().get_msg("EVENTS", 3)
    await client.close()

    def odd(_subject, _headers, data, _seq, _stored_ns):
        return json.loads(data) % 2 == 1

    async with linked(server) as link:
        tail = Tail(link, ReplayFilter(where=odd), follow=False)
        await within(tail.task)
        assert tail.lines == [1, 3]
        # `until` ends a reading even with `follow`.
        tail = Tail(link, ReplayFilter(until=last.time))
        await within(tail.task)
        assert tail.lines == [1, 2]


async def test_after_a_loss_before_the_first_message_it_does_not_begin_at_the_start(server):
    """An ordered consumer of nats-py then begins at sequence 1, whatever was asked for."""
    await publish(server, "old")
    for wanted in (
        ReplayFilter(since=datetime.now(UTC)),
        ReplayFilter(new_only=True),
    ):
        async with linked(server) as link:
            tail = Tail(link, wanted)
            try:
                await eventually(lambda: _consumers(server))
                await restart(server, link)
                await publish(server, "new")
                await eventually(lambda tail=tail: tail.lines)
                assert tail.lines == ["new"]
            finally:
                await tail.stop()
        await publish(server, "old")


async def _consumers(server):
    client = await nats.connect(server.url)
    try:
        return (await client.jetstream().stream_info("EVENTS")).state.consumer_count
    finally:
        await client.close()


async def test_after_a_loss_in_the_middle_it_continues_after_the_last_message_read(server):
    await publish(server, *range(5))
    async with linked(server) as link:
        tail = Tail(link, ReplayFilter())
        try:
            await eventually(lambda: len(tail.lines) == 5)
            await restart(server, link)
            await publish(server, *range(5, 8))
            await eventually(lambda: len(tail.lines) == 8)
            assert tail.lines == list(range(8))
        finally:
            await tail.stop()


async def test_messages_purged_below_the_position_are_no_error(server):
    await publish(server, *range(5))
    async with linked(server) as link:
        tail = Tail(link, ReplayFilter())
        try:
            await eventually(lambda: len(tail.lines) == 5)
            await link.client.jetstream().purge_stream("EVENTS")
            await restart(server, link)
            await publish(server, *range(5, 8))
            await eventually(lambda: len(tail.lines) == 8)
            assert tail.lines == list(range(8))
        finally:
            await tail.stop()


async def test_reading_ends_with_an_error_when_the_stream_is_made_anew(server):
    await publish(server, *range(5))
    async with linked(server) as link:
        tail = Tail(link, ReplayFilter())
        await eventually(lambda: len(tail.lines) == 5)
        client = await nats.connect(server.url)
        await client.jetstream().delete_stream("EVENTS")
        await add_stream(client.jetstream(), StreamConfig("EVENTS", subjects=["events.>"]))
        await client.close()
        with pytest.raises((StreamChanged, StreamMissing)):
            await within(tail.task)


async def test_a_missing_stream_is_an_error(server):
    async with linked(server) as link:
        with pytest.raises(StreamMissing, match="DEADLETTERS"):
            await within(Tail(link, ReplayFilter(dead_letters=True)).task)


def test_a_line_says_where_the_message_is():
    line = json.loads(render("events.acme.veh-1.door.open", HEADERS, b'{"a":1}', 9, 10**18))
    assert line == {
        "stream_seq": 9, "tenant": "acme", "device": "veh-1", "type": "door.open",
        "outbox": "box", "seq": 7, "time": "2026-11-23T10:00:00Z",
        "stored": "2001-09-09T01:46:40+00:00", "data": {"a": 1},
    }  # fmt: skip


def test_a_dead_letter_shows_its_error_and_the_original():
    headers = (
        b"NATS/1.0\r\nTidegate-Outbox:box\r\nTidegate-Seq:3\r\nTidegate-Error:schema\r\n"
        b"Tidegate-Detail:data.soc: too high\r\n\r\n"
    )
    line = json.loads(render("deadletters.acme.veh-1", headers, b"\xff{", 1, 0))
    assert line["error"] == "schema"
    assert line["detail"] == "data.soc: too high"
    assert line["original"] == "\ufffd{"
    assert (line["outbox"], line["seq"]) == ("box", 3)


@pytest.mark.parametrize("data", [b"plain text", b"", b"[" * 100_000, b"\xff"])
def test_messages_that_others_stored_are_shown_too(data):
    line = json.loads(render("events.acme.veh-1.t", b"", data, 1, 0))
    assert line["data"] == data.decode(errors="replace")
    assert "seq" not in line
