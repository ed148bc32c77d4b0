"""Queued commands through a gateway, a real nats-server and devices on raw sockets."""

import contextlib
import json
import time

import nats
import pytest

from gateway.stream.queue.facts import rfc3339
from gateway.stream.server.roles import Role, url_file
from support.gateways import running_gateway
from support.waiting import eventually
from support.wire import message, raw_device

RECEIPTS = {"receipts": True}
PLAIN: dict[str, bool] = {}


@contextlib.asynccontextmanager
async def device_of(gateway, device="veh-1", hello=PLAIN):
    """A device that has said hello, with these members too."""
    async with raw_device(gateway, device, greet=False) as raw:
        await raw.say({"hello": {"outbox": "box", "oldest": 1, **hello}})
        welcome = await raw.hear_named("welcome")
        assert "receipts" in welcome["features"]
        yield raw


@contextlib.asynccontextmanager
async def operator_of(gateway):
    client = await nats.connect(url_file(gateway.data_dir, Role.OPERATORS).read_text().strip())
    try:
        yield client
    finally:
        await client.close()


async def enqueue(operator, command_id, *, device="veh-1", ttl_s=600.0, data=None):
    entry = {
        "id": command_id,
        "type": "door.lock",
        "data": data,
        "expires": rfc3339(time.time() + ttl_s),
    }
    ack = await operator.jetstream().publish(
        f"commands.queue.default.{device}", json.dumps(entry).encode()
    )
    return ack.seq


async def facts_of(operator, command_id, device="veh-1"):
    """The facts of a command, in order."""
    stream = operator.jetstream()
    subject = f"commands.status.default.{device}.{command_id}"
    found = []
    with contextlib.suppress(nats.js.errors.NotFoundError):
        seq = 1
        while True:
            got = await stream.get_msg("COMMANDS", seq=seq, subject=subject, next=True)
            found.append(json.loads(got.data))
            seq = got.seq + 1
    return found


async def statuses_of(operator, command_id, device="veh-1"):
    return [fact["status"] for fact in await facts_of(operator, command_id, device)]


async def ended(operator, command_id, *statuses, device="veh-1"):
    """Wait until the command has gone through exactly these."""

    async def so():
        return await statuses_of(operator, command_id, device) == list(statuses)

    await eventually(so, f"{command_id}: {statuses}")


async def entries(operator):
    info = await operator.jetstream().stream_info("COMMANDS", subjects_filter="commands.queue.>")
    return sum((info.state.subjects or {}).values())


@pytest.fixture
async def gateway(tmp_path):
    async with running_gateway(tmp_path, stream__durability="stream") as gateway:
        yield gateway


async def test_a_command_waits_for_its_device_and_every_step_is_a_fact(gateway):
    async with operator_of(gateway) as operator:
        await enqueue(operator, "c-1", data={"doors": 4})
        await enqueue(operator, "c-2")
        async with device_of(gateway, hello=RECEIPTS) as device:
            command = await device.hear_named("command")
            assert 0 < command.pop("ttl_ms") <= 3_600_000, "what is left of its hour"
            assert command == {
                "id": "c-1", "type": "door.lock", "data": {"doors": 4}, "queued": True,
            }  # fmt: skip
            await ended(operator, "c-1", "sent")
            await device.say({"received": "c-1"})
            await ended(operator, "c-1", "sent", "delivered")
            await device.say({"result": {"id": "c-1", "ok": True, "data": {"locked": 4}}})
            assert await device.hear_named("settled") == "c-1"
            await ended(operator, "c-1", "sent", "delivered", "done")
            assert (await device.hear_named("command"))["id"] == "c-2"  # one at a time, in order
            await device.say({"result": {"id": "c-2", "ok": False, "data": {"error": "jammed"}}})
            assert await device.hear_named("settled") == "c-2"
            assert await entries(operator) == 0
        last = (await facts_of(operator, "c-1"))[-1]
        assert last["data"] == {"locked": 4}
        assert (await facts_of(operator, "c-2"))[-1]["reason"] == "jammed"


async def test_a_device_says_that_a_commands_time_passed_before_it_was_handed_over(gateway):
    async with operator_of(gateway) as operator, device_of(gateway, hello=RECEIPTS) as device:
        await enqueue(operator, "c-1")
        assert (await device.hear_named("command"))["id"] == "c-1"
        await device.say({"received": "c-1"})
        await device.say({"result": {"id": "c-1", "ok": False, "data": {"error": "expired"}}})
        assert await device.hear_named("settled") == "c-1"
        await ended(operator, "c-1", "sent", "delivered", "expired")
        assert await entries(operator) == 0


async def test_a_command_reaches_a_device_that_is_connected_already(gateway):
    async with operator_of(gateway) as operator, device_of(gateway, hello=PLAIN) as device:
        await device.say([message(1)])
        await device.hear_ack(1)
        await enqueue(operator, "c-1")
        assert (await device.hear_named("command"))["id"] == "c-1"
        await device.say({"result": {"id": "c-1", "ok": True}})
        await ended(operator, "c-1", "sent", "done")  # the result is the receipt


async def test_a_device_without_receipts_is_given_a_command_once(gateway):
    async with operator_of(gateway) as operator:
        await enqueue(operator, "c-1")
        async with device_of(gateway, hello=PLAIN) as device:
            assert (await device.hear_named("command"))["id"] == "c-1"
        await ended(operator, "c-1", "sent", "unknown")
        await enqueue(operator, "c-2")
        async with device_of(gateway, hello=PLAIN) as device:
            assert (await device.hear_named("command"))["id"] == "c-2"


async def test_a_device_with_receipts_is_given_a_command_again_until_it_has_it(gateway):
    async with operator_of(gateway) as operator:
        await enqueue(operator, "c-1")
        async with device_of(gateway, hello=RECEIPTS) as device:
            assert (await device.hear_named("command"))["id"] == "c-1"
        async with device_of(gateway, hello=RECEIPTS) as device:
            assert (await device.hear_named("command"))["id"] == "c-1"
            await device.say({"received": "c-1"})
            await ended(operator, "c-1", "sent", "delivered")
        async with device_of(gateway, hello=RECEIPTS) as device:  # it has the command: a result
            await device.say({"result": {"id": "c-1", "ok": True}})
            assert await device.hear_named("settled") == "c-1"
            await device.say({"result": {"id": "c-1", "ok": True}})  # it did not hear that
            assert await device.hear_named("settled") == "c-1"
        await ended(operator, "c-1", "sent", "delivered", "done")


async def test_a_device_may_say_in_a_further_hello_that_it_keeps_commands(gateway):
    """A client that does not know yet what the gateway understands begins with a plain hello; the
    first command may come before it has said more.
    """
    async with operator_of(gateway) as operator:
        await enqueue(operator, "c-1")
        async with device_of(gateway, hello=PLAIN) as device:
            await device.hear_named("command")
            await device.say({"hello": {"outbox": "box", "oldest": 1, **RECEIPTS}})
            await device.say({"received": "c-1"})
            await ended(operator, "c-1", "sent", "delivered")
        async with device_of(gateway, hello=RECEIPTS) as device:
            await device.say({"result": {"id": "c-1", "ok": True}})
            assert await device.hear_named("settled") == "c-1"
        await ended(operator, "c-1", "sent", "delivered", "done")


async def test_a_device_that_was_interrupted_says_that_the_outcome_is_unknown(gateway):
    async with operator_of(gateway) as operator, device_of(gateway, hello=RECEIPTS) as device:
        await enqueue(operator, "c-1")
        await device.hear_named("command")
        await device.say({"result": {"id": "c-1", "ok": False, "data": {"error": "unknown"}}})
        await ended(operator, "c-1", "sent", "unknown")


async def test_an_expired_command_is_never_sent(gateway):
    async with operator_of(gateway) as operator:
        await enqueue(operator, "c-1", ttl_s=0.2)
        await ended(operator, "c-1", "expired")
        await enqueue(operator, "c-2", ttl_s=-5)
        async with device_of(gateway, hello=RECEIPTS) as device:
            await ended(operator, "c-2", "expired")
            await enqueue(operator, "c-3")
            assert (await device.hear_named("command"))["id"] == "c-3"


async def test_what_is_no_command_is_settled_and_stops_nothing(gateway):
    async with operator_of(gateway) as operator:
        stream = operator.jetstream()
        for entry in (b"", b"{", b'{"id":"c-0","type":"no good","expires":"2099-01-01T00:00:00Z"}'):
            await stream.publish("commands.queue.default.veh-1", entry)
        await enqueue(operator, "c-1")
        async with device_of(gateway, hello=RECEIPTS) as device:
            assert (await device.hear_named("command"))["id"] == "c-1"
        await ended(operator, "c-0", "failed")
        assert await entries(operator) == 1


async def test_answers_that_mean_nothing_have_no_effect(gateway):
    async with operator_of(gateway) as operator:
        await enqueue(operator, "c-1")
        await enqueue(operator, "c-2", device="veh-2")
        async with (
            device_of(gateway, hello=RECEIPTS) as one,
            device_of(gateway, "veh-2", hello=PLAIN) as two,
        ):
            assert (await one.hear_named("command"))["id"] == "c-1"
            assert (await two.hear_named("command"))["id"] == "c-2"
            for number in range(100):
                await one.say({"received": f"x-{number}"})
                await two.say({"result": {"id": f"x-{number}", "ok": True}})
            await one.say({"result": {"id": "c-2", "ok": True}})  # another device's
            await two.say({"result": {"id": "c-1", "ok": True}})
            assert await one.hear_named("settled") == "c-2"  # nothing is known of it: no repeat
            await one.say({"result": {"id": "c-1", "ok": True}})
            await two.say({"received": "c-2"})
            await two.say({"result": {"id": "c-2", "ok": True}})
            await ended(operator, "c-1", "sent", "done")
            await ended(operator, "c-2", "sent", "delivered", "done", device="veh-2")
            assert await statuses_of(operator, "c-1", "veh-2") == []
        ignored = "tidegate_command_answers_ignored_total"
        await eventually(lambda: gateway.metrics.value(ignored, {"kind": "receipt"}) == 100)


async def test_commands_for_one_device_are_bounded(gateway):
    async with operator_of(gateway) as operator:
        config = (await operator.jetstream().stream_info("COMMANDS")).config
    assert (config.max_msgs_per_subject, config.discard_new_per_subject) == (1000, True)
