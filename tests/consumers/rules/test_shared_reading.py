"""Rules that share a reader of a real nats-server."""

import asyncio
import json
import random
from contextlib import AsyncExitStack, asynccontextmanager

import nats
import pytest
from aiohttp import web
from nats.js.api import StreamConfig

from gateway.consumers.rules import cohort
from gateway.consumers.sink import State
from gateway.events import pacing
from gateway.events.errors import StreamReplaced
from gateway.events.rules import Rule
from gateway.routing import rule_readings
from support.eventstream import linked, make_streams, publish_events
from support.rules import runner_of, running
from support.servers import free_port, nats_server
from support.waiting import eventually, within


@pytest.fixture
async def stream(tmp_path):
    with nats_server(tmp_path / "nats") as server:
        await make_streams(server)
        async with connected(server) as client:
            await client.jetstream().add_stream(StreamConfig("ALERTS", subjects=["alerts.>"]))
        yield server


@asynccontextmanager
async def connected(server):
    client = await nats.connect(server.url)
    yield client
    await client.close()


def rule(name, *codes, to=None, **changes):
    when = {"type": ["battery.low"], "data": {"code": list(codes)}}
    base = {"name": name, "when": when, "to": to or f"nats:alerts.{name}", "from": "start"}
    return Rule.model_validate(base | changes)


@asynccontextmanager
async def all_running(server, *rules):
    """The runners of these rules by name, which share their readers."""
    async with linked(server) as link, AsyncExitStack() as stack:
        readings = rule_readings(rules, link, random.Random(1))
        runners = {each.name: runner_of(link, each, reading_of=readings) for each in rules}
        for runner in runners.values():
            await stack.enter_async_context(running(runner))
        yield runners


async def readers(server):
    """How many consumers read EVENTS."""
    async with connected(server) as client:
        found = await client.jetstream().consumers_info("EVENTS")
    return sum(each.config.description == "Tidegate reader" for each in found)


async def delivered(server, name):
    """The numbers of the events that a rule has delivered to ALERTS."""
    async with connected(server) as client:
        jetstream = client.jetstream()
        info = await jetstream.stream_info("ALERTS", subjects_filter=f"alerts.{name}")
        if not info.state.subjects:
            return []
        messages = [
            await jetstream.get_msg("ALERTS", seq) for seq in range(1, info.state.last_seq + 1)
        ]
    return [json.loads(each.data)["n"] for each in messages if each.subject == f"alerts.{name}"]


async def until_delivered(server, name, wanted):
    async def there():
        return len(await delivered(server, name)) >= len(wanted)

    await eventually(there, f"{len(wanted)} events of {name}")
    assert await delivered(server, name) == list(wanted)


def coded(count, first=0, codes=3):
    return [{"n": n, "code": f"E{n % codes}"} for n in range(first, first + count)]


async def test_rules_with_equal_filters_share_one_reader(stream):
    await publish_events(stream, coded(30))
    others = rule("doors", "E0", when={"type": ["door.open"]})
    rules = [rule("zero", "E0"), rule("one", "E1"), rule("both", "E0", "E1"), others]
    async with all_running(stream, *rules):
        await until_delivered(stream, "zero", range(0, 30, 3))
        await until_delivered(stream, "one", range(1, 30, 3))
        await until_delivered(stream, "both", [n for n in range(30) if n % 3 < 2])
        assert await readers(stream) == 2  # of battery.low, and of door.open
        await publish_events(stream, coded(3, 30), first=31)
        await until_delivered(stream, "both", [n for n in range(33) if n % 3 < 2])


async def test_positions_are_apart(stream):
    """A rule that begins later gets the past, and one that was ahead gets nothing twice."""
    await publish_events(stream, coded(30))
    async with all_running(stream, rule("one", "E1")):
        await until_delivered(stream, "one", range(1, 30, 3))
    await publish_events(stream, coded(30, 30), first=31)
    async with all_running(stream, rule("one", "E1"), rule("zero", "E0")) as runners:
        await until_delivered(stream, "zero", range(0, 60, 3))
        await until_delivered(stream, "one", range(1, 60, 3))
        await eventually(lambda: {each.position for each in runners.values()} == {60})
        assert await readers(stream) == 1


async def test_a_rule_whose_position_is_beyond_the_kept_events_reads_alone_and_joins(
    stream, monkeypatch
):
    monkeypatch.setattr(cohort, "NEAR", 5)
    monkeypatch.setattr(cohort, "TAIL_EVENTS", 5)
    await publish_events(stream, coded(30))
    async with all_running(stream, rule("one", "E1")):
        await until_delivered(stream, "one", range(1, 30, 3))
    async with all_running(stream, rule("one", "E1"), rule("zero", "E0")):
        await until_delivered(stream, "zero", range(0, 30, 3))

        async def one_reader():
            return await readers(stream) == 1

        await eventually(one_reader, "one reader for both")
        await publish_events(stream, coded(30, 30), first=31)
        await until_delivered(stream, "zero", range(0, 60, 3))
        await until_delivered(stream, "one", range(1, 60, 3))


class Gate:
    """A receiver that answers once it is opened."""

    def __init__(self):
        self.open = asyncio.Event()
        self.numbers = []
        self.waiting = 0

    async def handle(self, request):
        number = json.loads(await request.read())["n"]
        self.waiting += 1
        await self.open.wait()
        self.numbers.append(number)
        return web.Response(status=204)


@asynccontextmanager
async def gate():
    found = Gate()
    application = web.Application()
    application.router.add_post("/", found.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    found.url = f"http://127.0.0.1:{port}/"
    yield found
    found.open.set()
    await runner.cleanup()


async def test_a_rule_whose_receiver_hangs_holds_nobody_back_and_follows_again(stream, monkeypatch):
    monkeypatch.setattr(pacing, "SHARE_EVENTS", 20)
    monkeypatch.setattr(cohort, "PORTION_EVENTS", 10)
    async with gate() as receiver:
        stuck = rule("stuck", "E0", to=receiver.url, timeout_ms=300_000)
        async with all_running(stream, rule("fast", "E0"), stuck) as runners:
            await publish_events(stream, coded(200, codes=1))
            await until_delivered(stream, "fast", range(200))
            assert runners["stuck"].position < 200
            receiver.open.set()
            await eventually(lambda: len(receiver.numbers) >= 200)
            assert sorted(receiver.numbers) == list(range(200))

            async def one_reader():
                return await readers(stream) == 1

            await eventually(one_reader, "the rule follows again")
            await publish_events(stream, coded(3, 200, codes=1), first=201)
            await until_delivered(stream, "fast", range(203))
            await eventually(lambda: len(receiver.numbers) >= 203)
    assert sorted(receiver.numbers) == list(range(203))


async def test_a_rule_that_begins_at_a_time_gets_nothing_from_before(stream):
    await publish_events(stream, coded(3, codes=1))
    async with connected(stream) as client:
        third = await client.jetstream().get_msg("EVENTS", 3)
    late = rule("late", "E0", **{"from": third.time})
    async with all_running(stream, late, rule("early", "E0")):
        await until_delivered(stream, "early", range(3))
        await until_delivered(stream, "late", [2])


async def test_a_stream_that_was_made_anew_stops_each_rule(stream):
    await publish_events(stream, coded(3, codes=1))
    rules = [rule("a", "E0"), rule("b", "E0")]
    async with linked(stream) as link:
        readings = rule_readings(rules, link, random.Random(1))
        runners = [runner_of(link, each, reading_of=readings) for each in rules]
        tasks = [asyncio.create_task(each.run()) for each in runners]
        await eventually(lambda: {each.position for each in runners} == {3})
        async with connected(stream) as client:
            await client.jetstream().delete_stream("EVENTS")
        await make_streams(stream)
        await publish_events(stream, coded(3, codes=1), outbox="o2")
        for task in tasks:
            with pytest.raises(StreamReplaced):
                await within(task)


async def test_a_rule_goes_on_in_a_stream_that_was_restored(stream):
    """Its last message has its id there; what came after the backup is new to the rule."""
    await publish_events(stream, coded(3, codes=1))
    async with all_running(stream, rule("a", "E0")) as runners:
        await eventually(lambda: runners["a"].position == 3)
    async with connected(stream) as client:
        await client.jetstream().delete_stream("EVENTS")
    await make_streams(stream)
    await publish_events(stream, coded(5, codes=1))
    async with all_running(stream, rule("a", "E0")) as runners:
        await eventually(lambda: runners["a"].position == 5)


async def test_a_position_without_a_match_moves_too(stream):
    async with all_running(stream, rule("one", "E1")) as runners:
        await eventually(lambda: runners["one"].state is State.RUNNING)
        await publish_events(stream, coded(4, codes=1))
        await eventually(lambda: runners["one"].position == 4)
        assert await eventually(lambda: runners["one"].lag_messages == 0)
