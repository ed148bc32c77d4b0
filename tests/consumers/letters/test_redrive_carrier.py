"""Letters of rules and sinks go again to the consumer that wrote them, between real servers."""

import asyncio
import json
import random
import time
from contextlib import asynccontextmanager

import psycopg
import pytest
from nats.js.api import StreamConfig

from gateway import tasks
from gateway.consumers.files import FilesTarget
from gateway.consumers.lease import Lease
from gateway.consumers.lease_bucket import LeaseBucket
from gateway.consumers.letters.redrive_carrier import RedriveCarrier
from gateway.consumers.letters.redrive_watch import RedriveWatch
from gateway.consumers.postgres.target import PostgresTarget
from gateway.consumers.sink import SinkRunner
from gateway.events.document import FilesSink, PostgresSink, redrives_of
from gateway.events.position import Position
from gateway.events.rules import Rule
from gateway.routing import RuleTargets
from gateway.sinks import own_readings
from support.eventstream import letters, linked, make_streams, publish_events
from support.redrives import connected, work
from support.rules import Counts, runner_of, running
from support.servers import nats_server
from support.waiting import eventually


@pytest.fixture
async def stream(tmp_path):
    with nats_server(tmp_path / "nats") as server:
        await make_streams(server)
        yield server


@pytest.fixture
async def link(stream):
    async with linked(stream) as link:
        yield link


def rule(**changes):
    pick = {"soc": "data.soc", "vehicle": "device"}
    wanted = {"name": "low", "when": {"type": ["battery.low"]}, "to": "nats:alerts.{device}"}
    return Rule.model_validate(wanted | {"pick": pick, "from": "start"} | changes)


async def make_target(server, **more):
    async with connected(server) as client:
        config = {"name": "ALERTS", "subjects": ["alerts.>"], "allow_atomic": True} | more
        await client.jetstream().add_stream(StreamConfig(**config))


async def arrived(server, count):
    async with connected(server) as client:
        jetstream = client.jetstream()

        async def enough():
            return (await jetstream.stream_info("ALERTS")).state.messages >= count

        await eventually(enough, f"{count} messages")
        last = (await jetstream.stream_info("ALERTS")).state.messages
        return [await jetstream.get_msg("ALERTS", seq) for seq in range(1, last + 1)]


def carrier_of(link, consumer, target, stage="rule"):
    return RedriveCarrier(
        consumer, target, link, stage=stage, observer=Counts(), rng=random.Random(1)
    )


@asynccontextmanager
async def carrying(link, wanted, owner="me"):
    carrier = carrier_of(link, wanted, RuleTargets().of_redrives(wanted, owner, link))
    async with watching(link, carrier):
        yield


@asynccontextmanager
async def watching(link, carrier):
    watch = RedriveWatch([carrier], link, random.Random(1))
    running = [asyncio.create_task(each) for _, each in watch.work()]
    try:
        yield
    finally:
        await tasks.end(*running)
        for each in running:
            assert each.cancelled() or each.exception() is None, each.exception()


async def fail(server, link, wanted, data):
    """Let a rule run over events which it cannot pick from."""
    await publish_events(server, data)
    async with running(runner_of(link, wanted)):
        await eventually(lambda: _letters_are(server, len(data)))


async def _letters_are(server, count):
    return len(await letters(server)) >= count


async def redriven(server, **more):
    async with connected(server) as client:
        return await work(client, **more).run()


async def test_a_letter_of_a_rule_is_sent_again_to_that_rule_with_the_same_id(stream, link):
    await make_target(stream)
    await fail(stream, link, rule(), [[1], [2]])
    outcome = await redriven(stream, patch={"soc": 7}, stage="rule", consumer="low")
    assert (outcome.sent, outcome.known, outcome.refused) == (2, 0, [])
    async with carrying(link, rule()):
        first, second = await arrived(stream, 2)
    assert first.data == b'{"soc":7,"vehicle":"veh-1"}'
    assert [each.headers["Nats-Msg-Id"] for each in (first, second)] == [
        "default:veh-1:rule/low:1",
        "default:veh-1:rule/low:2",
    ]
    assert (first.headers["ce-id"], second.headers["ce-id"]) == ("o1:1", "o1:2")
    again = await redriven(stream, patch={"soc": 7})
    assert (again.sent, again.known) == (0, 2)


async def test_a_redrive_that_fails_again_is_a_letter_with_a_count(stream, link):
    await make_target(stream)
    await fail(stream, link, rule(), [[1]])
    async with carrying(link, rule()):
        await redriven(stream)
        await eventually(lambda: _letters_are(stream, 2))
        _, headers, payload = (await letters(stream))[1]
        assert (headers["Tidegate-Error"], headers["Tidegate-Redrives"]) == ("pick", "1")
        assert (headers["Tidegate-Stream-Seq"], payload) == ("1", b"[1]")
        await redriven(stream)
        await eventually(lambda: _letters_are(stream, 3))
        assert (await letters(stream))[2][1]["Tidegate-Redrives"] == "2"
        outcome = await redriven(stream, patch={"soc": 3})
        assert (outcome.sent, outcome.known) == (1, 2)
        (message,) = await arrived(stream, 1)
    assert message.headers["Nats-Msg-Id"] == "default:veh-1:rule/low:1"


async def test_what_the_rule_does_not_match_any_more_is_a_letter_that_says_so(stream, link):
    await make_target(stream)
    low = {"type": ["battery.low"], "data": {"soc": [{"numeric": ["<", 20]}, {"exists": False}]}}
    await fail(stream, link, rule(when=low), [[1]])
    await redriven(stream, patch={"soc": 50})
    async with carrying(link, rule(when=low)):
        await eventually(lambda: _letters_are(stream, 2))
    _, headers, payload = (await letters(stream))[1]
    assert headers["Tidegate-Error"] == "no_match"
    assert "does not match it: data.soc" in headers["Tidegate-Detail"]
    assert payload == b'{"soc":50}'


@pytest.mark.parametrize("atomic", [True, False])
async def test_what_arrived_is_not_sent_again_when_jetstream_has_forgotten_its_id(
    stream, link, atomic
):
    """The carrier was killed before it stored its position, and the duplicate window has passed."""
    await make_target(stream, allow_atomic=atomic, duplicate_window=0.1)
    await fail(stream, link, rule(), [[soc] for soc in range(6)])
    await redriven(stream, patch={"soc": 7})
    async with carrying(link, rule()):
        await arrived(stream, 6)
    lease = Lease(LeaseBucket(link), "low.redrives", "me", time.monotonic)
    await eventually(lease.take)
    created = lease.record.position.created
    await lease.save(Position(created, 2), 0)
    await lease.release()

    async def forgotten():
        async with connected(stream) as client:
            headers = {"Nats-Msg-Id": "default:veh-1:rule/low:6"}
            ack = await client.jetstream().publish("alerts.probe", b"", headers=headers)
            return not ack.duplicate

    await eventually(forgotten)
    await publish_events(stream, [[9]], first=7)
    async with running(runner_of(link, rule())):
        await eventually(lambda: _letters_are(stream, 7))
    await redriven(stream, patch={"soc": 8})
    async with carrying(link, rule(), owner="another"):
        found = [each for each in await arrived(stream, 8) if each.data]
    assert [json.loads(each.data)["soc"] for each in found] == [7] * 6 + [8]
    assert [each.headers["ce-id"] for each in found] == [f"o1:{seq}" for seq in range(1, 8)]


async def test_of_two_processes_one_delivers_and_the_other_takes_over(stream, link):
    await make_target(stream)
    await fail(stream, link, rule(), [[1], [2], [3]])
    await redriven(stream, patch={"soc": 7})
    async with carrying(link, rule(), owner="one"), carrying(link, rule(), owner="two"):
        assert len(await arrived(stream, 3)) == 3
        await publish_events(stream, [[4]], first=4)
        async with running(runner_of(link, rule())):
            await eventually(lambda: _letters_are(stream, 4))
        await redriven(stream, patch={"soc": 7})
        found = await arrived(stream, 4)
    assert [each.headers["ce-id"] for each in found] == ["o1:1", "o1:2", "o1:3", "o1:4"]


# Sinks


def sink_runner(link, wanted, target):
    rng = random.Random(1)
    return SinkRunner(
        wanted, target, link, reading_of=own_readings([wanted], link, rng),
        observer=Counts(), rng=rng, wall_clock=time.time,
    )  # fmt: skip


def sink(**changes):
    columns = {"device": "device", "n": "stream_seq", "soc": "data.soc"}
    base = {"name": "battery", "table": "battery", "columns": columns, "linger_ms": 5}
    return PostgresSink.model_validate(base | changes)


async def test_a_letter_of_a_sink_becomes_the_row_that_it_should_have_been(stream, link, database):
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE battery (device text, n bigint, soc int)")

    def rows():
        with psycopg.connect(database) as connection:
            return connection.execute("SELECT n, soc FROM battery ORDER BY n").fetchall()

    await publish_events(stream, [{"soc": 1}, {"soc": "x"}, {"soc": 3}])
    runner = sink_runner(link, sink(), PostgresTarget(sink(), database, owner="me"))
    async with running(runner):
        await eventually(lambda: len(rows()) == 2)
    outcome = await redriven(stream, patch={"soc": 2}, stage="sink", consumer="battery")
    assert outcome.sent == 1

    for owner in ("me", "another"):  # the second finds nothing left to do
        target = PostgresTarget(redrives_of(sink()), database, owner=owner)
        carrier = carrier_of(link, sink(), target, "sink")
        async with watching(link, carrier):
            await eventually(lambda: len(rows()) == 3)
            await eventually(lambda carrier=carrier: carrier.idle)
        assert rows() == [(1, 1), (2, 2), (3, 3)]


async def test_a_sink_of_files_keeps_redrives_in_a_folder_of_their_own(stream, link, tmp_path):
    files = FilesSink.model_validate(
        {"name": "log", "kind": "files", "directory": tmp_path / "out", "linger_ms": 5}
    )
    await publish_events(stream, [b"{", {"soc": 2}])
    runner = sink_runner(link, files, FilesTarget(files))
    async with running(runner):
        await eventually(lambda: runner.position == 2)
    assert (await redriven(stream, patch={"soc": 1})).refused == [
        (1, "its data is no JSON, so no patch can change it")
    ]
    await redriven(stream)
    carrier = carrier_of(link, files, FilesTarget(redrives_of(files)), "sink")
    async with watching(link, carrier):
        await eventually(lambda: carrier.idle)
    assert (await letters(stream))[1][1]["Tidegate-Redrives"] == "1"
