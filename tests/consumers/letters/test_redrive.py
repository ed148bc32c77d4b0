"""Dead letters of a real nats-server: shown, exported, and sent again."""

import asyncio
import json
import random
import time

import nats
import pytest

from gateway.consumers.errors import NotOwner
from gateway.consumers.lease import Lease
from gateway.consumers.lease_bucket import LeaseBucket
from gateway.consumers.letters.redrive import LEASE_NAME
from gateway.events.redriving import redrive_id
from gateway.stream.lanes.stored import StoredSeqs
from gateway.stream.reading.reader import OneConnection
from support.commands import tidegate
from support.eventstream import make_streams, publish_events
from support.redrives import bury, connected, work
from support.servers import nats_server
from support.waiting import eventually


@pytest.fixture
async def stream(tmp_path):
    with nats_server(tmp_path / "nats") as server:
        await make_streams(server)
        yield server


async def stored(server):
    client = await nats.connect(server.url)
    jetstream = client.jetstream()
    count = (await jetstream.stream_info("EVENTS")).state.messages
    found = [await jetstream.get_msg("EVENTS", seq) for seq in range(1, count + 1)]
    await client.close()
    return found


async def test_letters_are_sent_again_once_and_in_order(stream):
    await bury(stream, [3, 5])
    await bury(stream, [1], device="veh-2")
    async with connected(stream) as client:
        outcome = await work(client, patch={"soc": 100}).run()
        assert (outcome.sent, outcome.known, outcome.refused) == (3, 0, [])
        again = await work(client, patch={"soc": 100}).run()
        assert (again.sent, again.known) == (0, 3)
    found = await stored(stream)
    assert [event.data for event in found] == [b'{"soc":100}'] * 3
    of_first = [event.headers["ce-id"] for event in found if ".veh-1." in event.subject]
    assert of_first == ["o1:3", "o1:5"]


async def test_a_redriven_event_does_not_mislead_the_look_up_by_last_message(stream):
    """The device has sent 10 messages; its third one is redriven behind them, when JetStream has
    forgotten their ids.

    Under the device's own id the last message of the outbox would say 3, and 4 to 10 would be
    stored a second time.
    """
    await with_short_window(stream)
    await publish_events(stream, [{"soc": 1}] * 10)
    await bury(stream, [3])
    async with connected(stream) as client:

        async def forgotten():
            headers = {"Nats-Msg-Id": "probe"}
            ack = await client.jetstream().publish("events.x.x.x", b"", headers=headers)
            return not ack.duplicate

        await forgotten()  # stored behind the ten, so it is forgotten after them
        await eventually(forgotten)
        await work(client, patch={"soc": 9}).run()
        look_up = StoredSeqs(
            lambda: client, concurrency=1, timeout_s=5.0, rng=random.Random(1), clock=time.monotonic
        )
        seq, _ = await look_up.last_seq("default", "veh-1", "o1")
    assert (await stored(stream))[-1].data == b'{"soc":9}'
    assert seq == 10


async def with_short_window(server):
    client = await nats.connect(server.url)
    config = (await client.jetstream().stream_info("EVENTS")).config
    config.duplicate_window = 0.1
    await client.jetstream().update_stream(config)
    await client.close()


class Killed(BaseException):
    """As a kill: nothing handles it."""


async def test_a_run_that_was_killed_sends_nothing_twice(stream, monkeypatch):
    """It ends after the event and before the fact, and the duplicate window is over."""
    await with_short_window(stream)
    await bury(stream, range(1, 21))
    async with connected(stream) as client:
        killed = work(client)
        publish, count = killed._publisher.jetstream, 0

        class Dying:
            def __init__(self, context):
                self._context = context

            async def publish(self, *arguments, **options):
                nonlocal count
                await self._context.publish(*arguments, **options)
                count += 1
                if count == 7:
                    raise Killed

        publisher = type("P", (), {"jetstream": lambda _self, **more: Dying(publish(**more))})()
        killed._publisher = publisher

        async def no_release():
            pass

        monkeypatch.setattr(killed._lease, "release", no_release)
        with pytest.raises(BaseExceptionGroup):
            await killed.run()
        assert count == 7

        async def forgotten():
            headers = {"Nats-Msg-Id": "default:veh-1:redrive/schema:7"}
            ack = await client.jetstream().publish("events.x.x.x", b"", headers=headers)
            return not ack.duplicate

        await eventually(forgotten)
        outcome = await work(client).run()
        assert (outcome.sent, outcome.known) == (13, 7)
    ids = [event.headers["Nats-Msg-Id"] for event in await stored(stream) if event.data]
    assert ids == [f"default:veh-1:redrive/schema:{seq}" for seq in range(1, 21)]


async def test_two_redrives_do_not_run_at_once(stream):
    await bury(stream, [1])
    async with connected(stream) as client:
        lease = Lease(LeaseBucket(OneConnection(client)), LEASE_NAME, "other", time.monotonic)
        await lease.open()
        await eventually(lease.take)
        running = asyncio.create_task(work(client).run())
        while not running.done():
            await lease.beat()
            await asyncio.wait({running}, timeout=0.2)
        with pytest.raises(NotOwner, match="another redrive runs"):
            running.result()


async def test_a_redrive_waits_until_the_lease_of_a_killed_one_has_ended(stream):
    await bury(stream, [1])
    async with connected(stream) as client:
        killed = Lease(LeaseBucket(OneConnection(client)), LEASE_NAME, "killed", time.monotonic)
        await killed.open()
        await eventually(killed.take)
        assert (await work(client).run()).sent == 1


async def test_what_a_killed_run_sent_is_known_though_another_selection_ran_since(stream):
    """Letter 1 was sent, and its run was killed before it wrote that down."""
    await with_short_window(stream)
    await bury(stream, [1])
    await bury(stream, [1], device="veh-2")
    async with connected(stream) as client:
        killed = Lease(LeaseBucket(OneConnection(client)), LEASE_NAME, "me", time.monotonic)
        await killed.open()
        await eventually(killed.take)
        await killed.save(None, 1)
        headers = {"Nats-Msg-Id": "default:veh-1:redrive/schema:1"}
        subject = "events.default.veh-1.battery.low"
        await client.jetstream().publish(subject, b"{}", headers=headers)
        assert (await work(client, device="veh-2").run()).sent == 1

        async def forgotten():
            ack = await client.jetstream().publish(subject, b"", headers=headers)
            return not ack.duplicate

        await eventually(forgotten)
        outcome = await work(client).run()
    assert (outcome.sent, outcome.known) == (0, 2)


async def test_what_cannot_be_an_event_stays_a_letter(stream):
    await bury(stream, [1, 2])
    async with connected(stream) as client:
        await client.jetstream().publish("deadletters.default.veh-1.rule.low", b"{}")

        def check(_type, data):
            return "too much" if b"170" in data else None

        outcome = await work(client, check=check).run()
        assert outcome.sent == 0
        assert [seq for seq, _ in outcome.refused] == [1, 2, 3]
        assert outcome.refused[0][1] == "schema: too much"
        events, _ = await work(client, stage="schema").preview()
        assert [redrive_id(event.letter)[-8:] for event in events] == ["schema:1", "schema:2"]
    assert await stored(stream) == []


# The command


@pytest.fixture
def run(stream):
    async def run(*arguments):
        return await asyncio.to_thread(
            tidegate, "deadletters", *arguments, "--nats-url", stream.url
        )

    return run


async def test_the_command_lists_shows_exports_and_sends(stream, run, tmp_path):
    await bury(stream, [1, 2, 3])
    await bury(stream, [9], device="veh-2", error="seq_reused")
    first = await run("list", "--limit", "2")
    assert len(first.stdout.splitlines()) == 2
    assert "--after 2" in first.stderr
    rest = await run("list", "--after", "2")
    assert [line.split()[0] for line in rest.stdout.splitlines()] == ["3", "4"]
    assert "ingest  seq_reused  default/veh-2  battery.low" in rest.stdout
    planned = await run("redrive", "--device", "veh-1", "--patch", '{"soc":50}', "--dry-run")
    assert planned.stdout.count('"data":{"soc":50}') == 3
    assert await stored(stream) == []
    sent = await run("redrive", "--device", "veh-1", "--patch", '{"soc":50}', "--rate", "1000")
    assert "3 sent, 0 were sent before, 0 refused" in sent.stderr
    assert len(await stored(stream)) == 3
    assert (await run("list", "--device", "veh-1")).stdout.count("(sent again)") == 3
    whole = json.loads((await run("show", "4")).stdout)
    assert (whole["stage"], whole["sent_again"]) == ("ingest", False)
    assert json.loads(whole["original"])["seq"] == 9
    exported = (await run("export", "--stage", "schema")).stdout.splitlines()
    assert [json.loads(line)["sent_again"] for line in exported] == [True] * 3


async def test_the_schemas_in_force_judge_a_redrive(stream, run, tmp_path):
    await bury(stream, [1])
    (tmp_path / "schemas").mkdir()
    schema = {"properties": {"soc": {"maximum": 100}}}
    (tmp_path / "schemas" / "battery.low.json").write_text(json.dumps(schema))
    (tmp_path / "events.toml").write_text('[schemas]\nfolder = "schemas"\n')
    events = ("-e", str(tmp_path / "events.toml"))
    refused = await run("redrive", "--patch", '{"soc":150}', *events)
    assert refused.returncode == 1
    assert "letter 1: schema: " in refused.stderr
    assert (await run("redrive", "--patch", '{"soc":80}', *events)).returncode == 0
    assert [event.data for event in await stored(stream)] == [b'{"soc":80}']


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", "7"), "there is no letter 7"),
        (("list", "--stage", "x"), "there are ingest, schema, rule, sink"),
        (("list", "--device", "a b"), "--device must match"),
        (("export", "--type", "a b"), "--type is one to eight"),
        (("redrive", "--patch", "[1]"), "--patch is no JSON object"),
        (("redrive", "-e", "/nowhere/events.toml"), "No such file"),
    ],
)
async def test_a_mistake_is_named(run, arguments, said):
    result = await run(*arguments)
    assert result.returncode == 1
    assert said in result.stderr


async def test_an_audit_of_the_stream(stream):
    async def audit(*more):
        return await asyncio.to_thread(tidegate, "audit", "--nats-url", stream.url, *more)

    await publish_events(stream, [{"soc": 1}] * 3)
    await bury(stream, [4])
    await publish_events(stream, [{"soc": 1}], first=5)
    async with connected(stream) as client:
        await work(client).run()
    first = await audit()
    assert first.returncode == 0
    assert "5 events (1 of them redriven or from other programs), 1 letters, 1 out" in first.stdout
    assert (await audit()).stdout == first.stdout
    await publish_events(stream, [{"soc": 1}], first=7)
    broken = await audit("--device", "veh-1")
    assert broken.returncode == 1
    assert "default/veh-1 outbox o1: seq 6 is neither an event nor a letter" in broken.stdout
