"""Rules whose targets are on NATS: subjects, streams and devices."""

import json
import time
from contextlib import AsyncExitStack

import pytest
from nats.js.api import StreamConfig, StreamSource

from gateway.consumers.delivery import nats_delivery
from gateway.consumers.errors import TargetRefused
from gateway.consumers.lease import Lease
from gateway.consumers.lease_bucket import LeaseBucket
from gateway.consumers.letters.letterbox import Letterbox
from gateway.consumers.rules import cohort
from gateway.consumers.sink import State
from gateway.consumers.target import Rejected
from gateway.events.event import Event
from gateway.events.position import Position
from gateway.routing import RuleTargets
from support.eventstream import letters, linked, publish_events
from support.rule_streams import arrived, connected, make_target, payloads, rule
from support.rules import runner_of, running
from support.servers import nats_server
from support.waiting import eventually


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
        lease = Lease(LeaseBucket(link), "low", "me", time.monotonic)
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


async def test_a_command_reaches_the_device_and_silence_is_a_failure(stream):
    heard, hops = [], []
    async with connected(stream) as client:

        async def device(message):
            heard.append((message.subject, json.loads(message.data)))
            hops.append(message.headers["Tidegate-Hops"])
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
    assert hops == ["1", "1"]
    ((subject, headers, _),) = await letters(stream)
    assert subject == "deadletters.default.veh-2.rule.low"
    assert headers["Tidegate-Error"] == "offline"


async def test_the_eighth_hop_is_no_command(stream):
    heard = []
    async with connected(stream) as client:

        async def device(message):
            heard.append(message.headers["Tidegate-Hops"])
            await message.respond(b'{"id":"x","ok":true}')

        await client.subscribe("commands.t.d", cb=device)
        await client.flush()
        for hops in (6, 7):
            await client.jetstream().publish(
                "events.t.d.battery.low", b'{"soc":1}', headers={"Tidegate-Hops": str(hops)}
            )
        async with linked(stream) as link:
            runner = runner_of(link, rule(to="command:charge"))
            async with running(runner):
                await eventually(lambda: runner.position == 2)
    assert heard == ["7"]
    ((_, headers, _),) = await letters(stream)
    assert headers["Tidegate-Error"] == "hops"


async def test_a_message_that_the_stream_refuses_delays_no_other_rule(stream):
    await make_target(stream, max_msg_size=1_000)
    await publish_events(stream, [{"soc": 1}, {"soc": 2, "x": "x" * 2_000}, {"soc": 3}])
    small = rule(name="small", to="nats:alerts.small.{device}", pick={"soc": "data.soc"})
    targets = RuleTargets()
    async with linked(stream) as link, AsyncExitStack() as stack:
        for each in (rule(), small):
            await stack.enter_async_context(running(runner_of(link, each, targets=targets)))
        await payloads(stream, 5)
        ((_, headers, _),) = await eventually(lambda: letters(stream))
    assert headers["Tidegate-Consumer"] == "low"
    socs = {}
    for message in await arrived(stream):
        socs.setdefault(message.subject, []).append(json.loads(message.data)["soc"])
    assert socs == {"alerts.default.veh-1": [1, 3], "alerts.small.veh-1": [1, 2, 3]}


async def test_portions_are_on_their_way_while_an_earlier_one_is_stored_and_each_arrives_once(
    stream, monkeypatch
):
    monkeypatch.setattr(nats_delivery, "BATCH_MESSAGES_MAX", 7)
    monkeypatch.setattr(cohort, "PORTION_EVENTS", 10)
    await make_target(stream, duplicate_window=0.1)
    await publish_events(stream, [{"soc": 1}] * 300)
    async with linked(stream) as link, running(runner_of(link, rule())):
        await payloads(stream, 300)
    ids = [message.headers["Nats-Msg-Id"] for message in await arrived(stream)]
    assert ids == [f"default:veh-1:rule/low:{seq}" for seq in range(1, 301)]
