"""Commands to a device that moves between two nodes over a real redis-server and nats-server."""

import asyncio
import contextlib
import json
import time

import nats
import nats.errors
import pytest

from gateway.stream.queue.facts import rfc3339
from support.asking import ask_device
from support.fleet import minted, nodes, registered
from support.waiting import eventually, within
from support.wire import raw_device

SUBJECT = "commands.default.veh-1"


@contextlib.asynccontextmanager
async def device_on(node, token, *, receipts=True):
    async with raw_device(node, token=token, greet=False) as raw:
        await raw.say({"hello": {"outbox": "box", "oldest": 1, "receipts": receipts}})
        await raw.hear_named("welcome")
        yield raw


@contextlib.asynccontextmanager
async def operator_on(servers):
    client = await nats.connect(servers[0].url)
    try:
        yield client
    finally:
        await client.close()


async def enqueue(operator, command_id):
    expires = rfc3339(time.time() + 600)
    entry = {"id": command_id, "type": "t", "data": 1, "expires": expires}
    subject = "commands.queue.default.veh-1"
    await operator.jetstream().publish(subject, json.dumps(entry).encode())


async def ended(operator, command_id, status):
    """Wait until this is the last status of the command."""

    async def so():
        subject = f"commands.status.default.veh-1.{command_id}"
        with contextlib.suppress(nats.js.errors.NotFoundError):
            message = await operator.jetstream().get_last_msg("COMMANDS", subject)
            return json.loads(message.data)["status"] == status
        return False

    await eventually(so, f"{command_id}: {status}")


async def test_a_request_reaches_the_node_that_holds_the_device(tmp_path, servers):
    token = minted(tmp_path, "veh-1")
    async with nodes(tmp_path, servers) as (one, two), operator_on(servers) as operator:
        with pytest.raises(nats.errors.NoRespondersError):
            await operator.request(SUBJECT, b'{"type":"t"}', timeout=10)
        async with device_on(one, token), contextlib.AsyncExitStack() as stack:
            await registered(servers, one)
            moved = await stack.enter_async_context(device_on(two, token))
            await eventually(lambda: one.basis.fleet.find("default", "veh-1") is None)
            asking = asyncio.create_task(ask_device(operator, b'{"type":"t"}'))
            command = await moved.hear_named("command")
            await moved.say({"result": {"id": command["id"], "ok": True}})
            assert json.loads((await within(asking)).data)["id"] == command["id"]

        async def offline():
            try:
                await operator.request(SUBJECT, b'{"type":"t"}', timeout=0.05)
            except nats.errors.NoRespondersError:
                return True
            except TimeoutError:
                return False
            return False

        await eventually(offline)


async def test_a_command_follows_a_device_with_receipts_to_another_node(tmp_path, servers):
    token = minted(tmp_path, "veh-1")
    async with nodes(tmp_path, servers) as (one, two), operator_on(servers) as operator:
        async with device_on(one, token) as first:
            await enqueue(operator, "c-1")
            await enqueue(operator, "c-2")
            assert (await first.hear_named("command"))["id"] == "c-1"
            await registered(servers, one)
            async with device_on(two, token) as second:
                assert (await second.hear_named("command"))["id"] == "c-1"
                await second.say({"received": "c-1"})
                await second.say({"result": {"id": "c-1", "ok": True}})
                assert await second.hear_named("settled") == "c-1"
                assert (await second.hear_named("command"))["id"] == "c-2"
                await second.say({"result": {"id": "c-2", "ok": True}})
                await ended(operator, "c-2", "done")


async def test_a_device_without_receipts_is_not_given_a_command_on_two_nodes(tmp_path, servers):
    token = minted(tmp_path, "veh-1")
    async with nodes(tmp_path, servers) as (one, two), operator_on(servers) as operator:
        async with device_on(one, token, receipts=False) as first:
            await enqueue(operator, "c-1")
            await enqueue(operator, "c-2")
            assert (await first.hear_named("command"))["id"] == "c-1"
            await registered(servers, one)
            async with device_on(two, token, receipts=False) as second:
                assert (await second.hear_named("command"))["id"] == "c-2"
                await ended(operator, "c-1", "unknown")
                await second.say({"result": {"id": "c-2", "ok": True}})
                await ended(operator, "c-2", "done")


async def test_one_node_settles_what_expires_and_the_other_forgets_it(tmp_path, servers):
    async with nodes(tmp_path, servers) as (one, two), operator_on(servers) as operator:
        entry = {"id": "c-1", "type": "t", "data": 1, "expires": rfc3339(time.time() + 1)}
        subject = "commands.queue.default.veh-1"
        await operator.jetstream().publish(subject, json.dumps(entry).encode())
        known = "tidegate_commands_queued"
        await ended(operator, "c-1", "expired")
        await eventually(lambda: 0 in (one.metrics.value(known), two.metrics.value(known)))
