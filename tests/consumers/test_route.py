"""Rules between a real nats-server and their targets."""

import asyncio
import contextlib
import json
import random
import signal
import subprocess
import time
from contextlib import asynccontextmanager
from datetime import timedelta

import nats
import pytest
from aiohttp import web
from nats.js.api import StreamConfig, StreamSource
from typer.testing import CliRunner

from gateway.cli import app
from gateway.consumers import lease as leases
from gateway.consumers.attempts import wait_s
from gateway.consumers.errors import NotOwner, TargetRefused
from gateway.consumers.lease import Lease
from gateway.consumers.letterbox import Letterbox
from gateway.consumers.sink import State
from gateway.consumers.target import Rejected
from gateway.events.event import Event
from gateway.events.position import Position
from gateway.events.rules import Rule
from support.commands import spawned_tidegate
from support.eventstream import letters, linked, make_streams, publish_events
from support.rules import runner_of, running
from support.servers import free_port, nats_server
from support.waiting import eventually

LOW = {"type": ["battery.low"], "data": {"soc": [{"numeric": ["<", 20]}]}}


@pytest.fixture
async def stream(tmp_path):
    with nats_server(tmp_path / "nats") as server:
        await make_streams(server)
        yield server


def rule(to="nats:alerts.{tenant}.{device}", **changes):
    return Rule.model_validate({"name": "low", "when": LOW, "to": to, "from": "start"} | changes)


async def make_target(server, **more):
    config = {"name": "ALERTS", "subjects": ["alerts.>"], "allow_atomic": True} | more
    async with connected(server) as client:
        await client.jetstream().add_stream(StreamConfig(**config))


@asynccontextmanager
async def connected(server):
    client = await nats.connect(server.url)
    yield client
    await client.close()


async def arrived(server, stream="ALERTS"):
    """What the target holds, in order."""
    async with connected(server) as client:
        jetstream = client.jetstream()
        count = (await jetstream.stream_info(stream)).state.messages
        return [await jetstream.get_msg(stream, seq) for seq in range(1, count + 1)]


async def payloads(server, count):
    async def enough():
        async with connected(server) as client:
            info = await client.jetstream().stream_info("ALERTS")
        return info.state.messages >= count

    await eventually(enough, f"{count} messages")
    return [json.loads(message.data)["soc"] for message in await arrived(server)]


@pytest.mark.parametrize("atomic", [True, False])
async def test_matching_events_reach_the_target_in_order_and_once(stream, atomic):
    await make_target(stream, allow_atomic=atomic)
    await publish_events(stream, [{"soc": soc} for soc in (5, 50, 7, 20, 9)])
    await publish_events(stream, [{"soc": 1}], device="veh-2", message_type="door")
    async with linked(stream) as link:
        async with running(runner_of(link, rule())):
            assert await payloads(stream, 3) == [5, 7, 9]
        await publish_events(stream, [{"soc": 11}], first=6)
        async with running(runner_of(link, rule(), owner="another")):
            assert await payloads(stream, 4) == [5, 7, 9, 11]
    first = (await arrived(stream))[0]
    assert first.subject == "alerts.default.veh-1"
    assert first.headers["Nats-Msg-Id"] == "default:veh-1:rule/low:1"
    assert first.headers["ce-id"] == "o1:1"
    assert first.headers["Tidegate-Hops"] == "1"


@pytest.mark.parametrize("atomic", [True, False])
async def test_what_arrived_is_not_sent_again_when_jetstream_has_forgotten_its_id(stream, atomic):
    """The position went back, as after a kill before it was stored, and the window has passed."""
    await make_target(stream, allow_atomic=atomic, duplicate_window=0.1)
    await publish_events(stream, [{"soc": soc} for soc in range(10)])
    async with linked(stream) as link:
        async with running(runner_of(link, rule())):
            await payloads(stream, 10)
        lease = Lease(link, "low", "me", time.monotonic)
        await eventually(lease.take)
        await lease.save(Position(lease.record.position.created, 3, "default:veh-1:o1:3"), 0)
        await lease.release()
        probe = json.dumps({"soc": 99}).encode()
        async with connected(stream) as client:  # until JetStream has forgotten this id

            async def forgotten():
                headers = {"Nats-Msg-Id": "default:veh-1:rule/low:10"}
                ack = await client.jetstream().publish("alerts.probe", probe, headers=headers)
                return not ack.duplicate

            await eventually(forgotten)
        await publish_events(stream, [{"soc": 15}], first=11)
        async with running(runner_of(link, rule())):
            found = await payloads(stream, 12)
    assert [soc for soc in found if soc != 99] == [*range(10), 15]


async def test_a_batch_with_a_message_that_is_stored_already_goes_one_by_one(stream):
    await make_target(stream)
    headers = {"Nats-Msg-Id": "default:veh-1:rule/low:2"}
    async with connected(stream) as client:
        await client.jetstream().publish("alerts.default.veh-1", b'{"soc":2}', headers=headers)
    await publish_events(stream, [{"soc": soc} for soc in (1, 2, 3)])
    async with linked(stream) as link, running(runner_of(link, rule())):
        assert await payloads(stream, 3) == [2, 1, 3]


async def test_a_payload_is_picked_and_what_has_none_is_a_letter(stream):
    await make_target(stream)
    await publish_events(stream, [{"soc": 1}, [1], {"soc": 2}])
    pick = {"soc": "data.soc", "vehicle": "device"}
    wanted = rule(when={"type": ["battery.low"]}, pick=pick)
    async with linked(stream) as link, running(runner_of(link, wanted)):
        assert await payloads(stream, 2) == [1, 2]
        ((subject, headers, payload),) = await eventually(lambda: letters(stream))
    assert (await arrived(stream))[0].data == b'{"soc":1,"vehicle":"veh-1"}'
    assert subject == "deadletters.default.veh-1.rule.low"
    assert (headers["Tidegate-Stage"], headers["Tidegate-Error"]) == ("rule", "pick")
    assert payload == b"[1]"


async def test_the_eighth_hop_is_a_letter(stream):
    await make_target(stream)
    async with connected(stream) as client:
        for hops in (6, 7):
            await client.jetstream().publish(
                "events.t.d.battery.low", b'{"soc":%d}' % hops, headers={"Tidegate-Hops": str(hops)}
            )
    async with linked(stream) as link, running(runner_of(link, rule())):
        assert await payloads(stream, 1) == [6]
        ((_, headers, _),) = await eventually(lambda: letters(stream))
    assert (await arrived(stream))[0].headers["Tidegate-Hops"] == "7"
    assert headers["Tidegate-Error"] == "hops"


async def test_a_letter_in_doubt_is_looked_up_by_itself(stream):
    """A later letter of the device is stored; an earlier one may be missing nevertheless."""
    events = [
        Event("events.t.d.battery.low", b"NATS/1.0\r\n\r\n", b"%d" % seq, seq, 0) for seq in (3, 7)
    ]
    rejected = [Rejected(event, "http_500", "") for event in events]
    async with linked(stream) as link:
        await link.wait_up()
        box = Letterbox(link, "rule", "low")
        await box.store(rejected[1:], in_doubt=False)
        await box.store(rejected, in_doubt=True)
        await box.store(rejected, in_doubt=True)
    assert [payload for _, _, payload in await letters(stream)] == [b"7", b"3"]


async def test_a_message_larger_than_the_target_takes_is_a_letter(stream):
    await make_target(stream, max_msg_size=1_000)
    await publish_events(stream, [{"soc": 1}, {"soc": 2, "x": "x" * 2_000}, {"soc": 3}])
    async with linked(stream) as link, running(runner_of(link, rule())):
        assert await payloads(stream, 2) == [1, 3]
        ((_, headers, _),) = await eventually(lambda: letters(stream))
    assert headers["Tidegate-Error"] == "too_large"


async def test_a_subject_that_no_stream_holds_is_published_for_who_listens(stream):
    async with connected(stream) as client:
        listening = await client.subscribe("alerts.>")
        await client.flush()
        async with linked(stream) as link, running(runner_of(link, rule())):
            await publish_events(stream, [{"soc": 1}, {"soc": 50}, {"soc": 2}])
            heard = [await listening.next_msg(timeout=20) for _ in range(2)]
    assert [message.data for message in heard] == [b'{"soc": 1}', b'{"soc": 2}']


async def test_now_replays_nothing(stream):
    await make_target(stream)
    await publish_events(stream, [{"soc": 1}])
    async with linked(stream) as link:
        runner = runner_of(link, rule(**{"from": "now"}))
        async with running(runner):
            await eventually(lambda: runner.state is State.RUNNING)
            await publish_events(stream, [{"soc": 2}], first=2)
            assert await payloads(stream, 1) == [2]


@pytest.mark.parametrize("way", ["held", "sourced", "two"])
async def test_a_target_that_would_come_back_is_refused(tmp_path, way):
    with nats_server(tmp_path / "nats") as server:
        subjects = ["events.>", "alerts.>"] if way == "held" else ["events.>"]
        async with connected(server) as client:
            jetstream = client.jetstream()
            if way == "two":
                await jetstream.add_stream(StreamConfig("A", subjects=["alerts.*.a"]))
                await jetstream.add_stream(StreamConfig("B", subjects=["alerts.*.b"]))
            if way == "sourced":
                await jetstream.add_stream(StreamConfig("ALERTS", subjects=["alerts.>"]))
                await jetstream.add_stream(
                    StreamConfig("BETWEEN", sources=[StreamSource("ALERTS")])
                )
            sources = [StreamSource("BETWEEN")] if way == "sourced" else None
            await jetstream.add_stream(StreamConfig("EVENTS", subjects=subjects, sources=sources))
        async with linked(server) as link:
            await link.wait_up()
            with pytest.raises(TargetRefused, match="rule low: ") as caught:
                await runner_of(link, rule()).check()
    said = {"held": "EVENTS holds", "sourced": "EVENTS sources ALERTS", "two": "held by A and B"}
    assert said[way] in str(caught.value)


async def test_a_server_that_is_killed_in_the_middle_loses_and_doubles_nothing(stream):
    await make_target(stream, duplicate_window=0.1)
    async with linked(stream) as link, running(runner_of(link, rule())):
        for part in range(3):
            await publish_events(stream, [{"soc": 1}] * 200, first=1 + 200 * part)
            stream.kill()
            stream.start()
        await payloads(stream, 600)
    ids = [message.headers["Nats-Msg-Id"] for message in await arrived(stream)]
    assert ids == [f"default:veh-1:rule/low:{seq}" for seq in range(1, 601)]


# Leases


class Clock:
    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


async def test_a_rule_has_one_owner_until_it_shows_no_sign_of_life(stream):
    clock = Clock()
    async with linked(stream) as link:
        await link.wait_up()
        first, second = (Lease(link, "low", owner, clock) for owner in ("a", "b"))
        await first.open()
        await second.open()
        assert await first.take()
        await first.save(Position("made", 7, "id"), 3)
        assert not await second.take()
        clock.now += leases.LEASE_S + 1
        await first.beat()
        assert not await second.take()  # it has just changed
        clock.now += leases.LEASE_S + 1
        with pytest.raises(NotOwner):
            first.check()
        assert await second.take()
        assert (second.record.position, second.record.mark) == (Position("made", 7, "id"), 3)
        second.check()
        for late in (first.beat(), first.save(Position("made", 9), 9)):
            with pytest.raises(NotOwner):
                await late
        await first.release()  # changes nothing
        await second.beat()
        await second.release()
        assert await first.take()


async def test_a_write_whose_answer_was_lost_is_still_the_owners(stream):
    async with linked(stream) as link:
        await link.wait_up()
        lease = Lease(link, "low", "a", time.monotonic)
        await lease.open()
        assert await lease.take()
        before = lease._revision, lease.record
        await lease.beat()
        lease._revision, lease.record = before  # as if the answer had not come
        await lease.save(Position("made", 7), 0)
        assert lease.record.position == Position("made", 7)


async def test_a_standby_takes_over_without_gap_or_double(stream, monkeypatch):
    monkeypatch.setattr(leases, "LEASE_S", 0.3)
    await make_target(stream)
    async with linked(stream) as link:
        owner, standby = runner_of(link, rule()), runner_of(link, rule(), owner="standby")
        async with running(owner), running(standby):
            await eventually(lambda: owner.running or standby.running)
            await publish_events(stream, [{"soc": 1}] * 100)
            await payloads(stream, 100)
            if standby.running:
                owner, standby = standby, owner
            # It hangs: no beat, no release.
            monkeypatch.setattr(owner._target, "beat", lambda: asyncio.sleep(3600))
            await eventually(lambda: standby.running, "the standby runs")
            await publish_events(stream, [{"soc": 2}] * 100, first=101)
            await payloads(stream, 200)
    ids = [message.headers["Nats-Msg-Id"] for message in await arrived(stream)]
    assert len(set(ids)) == len(ids) == 200


# HTTP


class Receiver:
    """A receiver of events that answers what the test says."""

    def __init__(self, answers):
        self.answers = answers
        self.requests = []

    async def handle(self, request):
        body = await request.read()
        self.requests.append((dict(request.headers), body))
        answer = self.answers.pop(0) if self.answers else {}
        if answer.get("reset"):
            request.transport.abort()
        if answer.get("huge"):
            return await huge(request)
        return web.Response(**{"status": 204} | {k: v for k, v in answer.items() if k != "reset"})


async def huge(request):
    """More than anybody may read, as fast as it is taken."""
    response = web.StreamResponse(status=500)
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        for _ in range(1_000):
            await response.write(b"x" * 65_536)
            await asyncio.sleep(0)
    return response


@asynccontextmanager
async def receiver(answers=()):
    found = Receiver(list(answers))
    application = web.Application()
    application.router.add_post("/events", found.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    found.url = f"http://127.0.0.1:{port}/events"
    yield found
    await runner.cleanup()


def http_rule(url, **changes):
    return rule(to=url, retry_ms=10, retry_max_ms=20, **changes)


async def test_events_are_posted_as_cloudevents(stream):
    await publish_events(stream, [{"soc": 1}])
    async with receiver() as found, linked(stream) as link:
        async with running(runner_of(link, http_rule(found.url))):
            await eventually(lambda: found.requests)
    ((headers, body),) = found.requests
    assert body == b'{"soc": 1}'
    assert headers["Idempotency-Key"] == "default:veh-1:rule/low:1"
    assert headers["ce-type"] == "battery.low"
    assert headers["ce-id"] == "o1:1"
    assert headers["ce-source"] == "tidegate:default/veh-1"
    assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 500, "text": "not now"},
        {"status": 429, "headers": {"Retry-After": "0"}},
        {"status": 503, "headers": {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}},
        {"status": 302, "headers": {"Location": "http://127.0.0.1:1/"}},
        {"huge": True},
        {"reset": True},
    ],
)
async def test_a_failed_request_is_repeated_with_the_same_id(stream, answer):
    await publish_events(stream, [{"soc": 1}])
    async with receiver([answer]) as found, linked(stream) as link:
        runner = runner_of(link, http_rule(found.url))
        async with running(runner):
            await eventually(lambda: len(found.requests) > 1)
            await eventually(lambda: runner.position == 1)
    assert len({headers["Idempotency-Key"] for headers, _ in found.requests}) == 1
    assert await letters(stream) == []


async def test_what_fails_each_time_is_a_letter_and_holds_nothing_up(stream):
    await publish_events(stream, [{"soc": 1}])
    answers = [{"status": 500, "text": "no room"}] * 3
    async with receiver(answers) as found, linked(stream) as link:
        async with running(runner_of(link, http_rule(found.url, attempts=3))):
            ((_, headers, _),) = await eventually(lambda: letters(stream))
            assert len(found.requests) == 3
            await publish_events(stream, [{"soc": 2}], first=2)
            await eventually(lambda: len(found.requests) == 4)
    assert (headers["Tidegate-Error"], headers["Tidegate-Detail"]) == ("http_500", "no room")


def test_waits_double_up_to_a_cap_and_what_is_asked_for_is_a_floor():
    wanted = rule(retry_ms=100, retry_max_ms=1_000)
    rng = random.Random(1)
    for failures, ceiling in ((1, 0.1), (2, 0.2), (4, 0.8), (9, 1.0), (10_000, 1.0)):
        waits = [wait_s(wanted, failures, 0.0, rng) for _ in range(200)]
        assert min(waits) < ceiling / 5
        assert ceiling * 0.8 < max(waits) <= ceiling
    assert 0.5 < wait_s(wanted, 1, 0.5, rng) <= 0.6
    assert 1.0 < wait_s(wanted, 1, timedelta(days=1).total_seconds(), rng) <= 1.1


async def test_a_slow_receiver_does_not_hold_another_rule_up(stream):
    await make_target(stream)
    await publish_events(stream, [{"soc": soc} for soc in range(10)])
    async with receiver([{"status": 500}] * 10_000) as found, linked(stream) as link:
        slow = http_rule(found.url, name="slow", attempts=1_000)
        async with running(runner_of(link, slow)), running(runner_of(link, rule())):
            assert await payloads(stream, 10) == list(range(10))


# Commands


async def test_a_command_reaches_the_device_and_silence_is_a_failure(stream):
    heard = []
    async with connected(stream) as client:

        async def device(message):
            heard.append((message.subject, json.loads(message.data)))
            ok = len(heard) > 1
            await message.respond(json.dumps({"id": "x", "ok": ok, "data": None}).encode())

        await client.subscribe("commands.default.veh-1", cb=device)
        await client.flush()
        await publish_events(stream, [{"soc": 1}])
        await publish_events(stream, [{"soc": 2}], device="veh-2")
        wanted = rule(to="command:charge", attempts=2, retry_ms=10, timeout_ms=5_000)
        async with linked(stream) as link, running(runner_of(link, wanted)):
            await eventually(lambda: letters(stream))
    assert heard == [("commands.default.veh-1", {"type": "charge", "data": {"soc": 1}})] * 2
    ((subject, headers, _),) = await letters(stream)
    assert subject == "deadletters.default.veh-2.rule.low"
    assert headers["Tidegate-Error"] == "silence"


# The process


def events_file(directory, to="nats:alerts.{device}"):
    file = directory / "events.toml"
    when = json.dumps(LOW)
    file.write_text(f"[[rule]]\nname = 'low'\nfrom = 'start'\nto = '{to}'\nwhen = '{when}'\n")
    return file


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_process_runs_the_rules_and_gives_them_up(stream, tmp_path, number):
    await make_target(stream)
    await publish_events(stream, [{"soc": 1}])
    arguments = ["route", "-e", str(events_file(tmp_path)), "--ops-port", "0"]
    with spawned_tidegate(*arguments, "--nats-url", stream.url) as process:
        assert await payloads(stream, 1) == [1]
        process.send_signal(number)
        assert await asyncio.to_thread(process.wait, 30) == 0
    async with linked(stream) as link:
        await link.wait_up()
        lease = Lease(link, "low", "next", time.monotonic)
        assert await lease.take()  # at once: the process has released it
        assert lease.record.position.seq == 1


async def test_a_process_whose_target_is_refused_ends_with_the_reason(tmp_path):
    with nats_server(tmp_path / "nats") as server:
        async with connected(server) as client:
            subjects = ["events.>", "alerts.>"]
            await client.jetstream().add_stream(StreamConfig("EVENTS", subjects=subjects))
        arguments = ["route", "-e", str(events_file(tmp_path)), "--ops-port", "0"]
        arguments += ["--nats-url", server.url]
        with spawned_tidegate(*arguments, stderr=subprocess.PIPE) as process:
            assert await asyncio.to_thread(process.wait, 30) == 1
            assert "rule low: EVENTS holds alerts.*" in process.stderr.read()


@pytest.mark.parametrize(
    ("content", "arguments", "said"),
    [
        ("", (), "no [[rule]]"),
        ("[[rule", (), "events.toml"),
        (None, ("--only", "x"), "there are low"),
    ],
)
def test_what_cannot_be_run_is_named(tmp_path, content, arguments, said):
    file = events_file(tmp_path)
    if content is not None:
        file.write_text(content)
    result = CliRunner().invoke(app, ["route", "-e", str(file), *arguments])
    assert result.exit_code == 1
    assert said in result.stderr
