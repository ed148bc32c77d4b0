"""The state of a device reaches it, over a real NATS: in the welcome, or as a frame."""

import asyncio
import contextlib
import json

import nats

from support.eventstream import add_stream
from support.gateways import running_gateway
from support.servers import nats_server
from support.waiting import eventually, within
from support.wire import raw_device

SUBJECT = "state.default.veh-1"


@contextlib.asynccontextmanager
async def operator(gateway):
    """JetStream as an operator sees it."""
    url = (gateway.data_dir / "nats" / "operators.url").read_text().strip()
    client = await nats.connect(url)
    yield client.jetstream()
    await client.close()


async def set_state(stream, number, subject=SUBJECT):
    payload = json.dumps({"desired": {"n": number}}).encode()
    return (await stream.publish(subject, payload)).seq


def lookups(gateway, whom="direct"):
    return gateway.metrics.value("tidegate_state_lookups_total", {"whom": whom})


async def test_a_device_which_asks_is_told_in_its_welcome_and_then_by_frames(tmp_path):
    async with running_gateway(tmp_path) as gateway, operator(gateway) as stream:
        seq = await set_state(stream, 1)
        async with raw_device(gateway, greet=False) as device:
            welcome = await device.greet(state="")
            assert "state" in welcome["features"]
            first = welcome["state"]
            assert first["desired"] == {"n": 1}
            assert first["version"].rpartition("-")[2] == str(seq)
            await set_state(stream, 2)
            second = await device.hear_named("state")
            assert second["desired"] == {"n": 2}
        async with raw_device(gateway, greet=False) as device:
            assert (await device.greet(state=first["version"]))["state"] == second
        async with raw_device(gateway, greet=False) as device:
            assert "state" not in await device.greet(state=second["version"])
        assert lookups(gateway) <= 1
        assert lookups(gateway, "leader") == 0


async def test_a_device_may_ask_in_a_further_hello(tmp_path):
    """A client that does not know yet what the gateway understands begins with a plain hello."""
    async with running_gateway(tmp_path) as gateway, operator(gateway) as stream:
        await set_state(stream, 1)
        async with raw_device(gateway, greet=False) as device:
            assert "state" not in await device.greet()
            await device.say({"hello": {"outbox": "o1", "oldest": 1, "sent": 0, "state": ""}})
            assert "resume" in await device.hear()
            assert (await device.hear_named("state"))["desired"] == {"n": 1}
            await set_state(stream, 2)
            assert (await device.hear_named("state"))["desired"] == {"n": 2}


async def test_a_device_which_does_not_ask_is_told_nothing(tmp_path):
    async with running_gateway(tmp_path) as gateway, operator(gateway) as stream:
        async with raw_device(gateway, "veh-2", greet=False) as device:
            await device.greet(state="")  # from here on, states are followed
        await set_state(stream, 1)
        async with raw_device(gateway) as device:
            assert "state" not in device.welcome
            await set_state(stream, 2)
            await eventually(lambda: gateway.metrics.value("tidegate_states_known") == 2)
            await device.say({"seq": 1, "type": "t", "data": 1})
            assert "ack" in await device.hear()
        assert lookups(gateway) == 1


async def test_no_state_was_ever_set(tmp_path):
    async with running_gateway(tmp_path) as gateway, operator(gateway) as stream:
        for _ in range(2):
            async with raw_device(gateway, greet=False) as device:
                assert "state" not in await device.greet(state="")
        await set_state(stream, 1, "state.default.other")
        async with raw_device(gateway, "veh-2", greet=False) as device:
            assert "state" not in await device.greet(state="nonsense")
            await set_state(stream, 7, "state.default.veh-2")
            assert (await device.hear_named("state"))["desired"] == {"n": 7}
        assert lookups(gateway) == 2
        assert lookups(gateway, "leader") == 0


async def test_a_version_from_the_future_is_checked_with_the_leader(tmp_path):
    async with running_gateway(tmp_path) as gateway, operator(gateway) as stream:
        await set_state(stream, 1)
        async with raw_device(gateway, greet=False) as device:
            version = (await device.greet(state=""))["state"]["version"]
        epoch, _, seq = version.rpartition("-")
        later = f"{int(epoch, 16) + 10**9:016x}"
        for claim in (f"{epoch}-{int(seq) + 1000}", f"{later}-1", "x" * 1000, f"0{epoch}-1"):
            async with raw_device(gateway, greet=False) as device:
                state = (await device.greet(state=claim))["state"]
                assert (state["version"], state["desired"]) == (version, {"n": 1})
        assert lookups(gateway, "leader") == 2


async def test_what_is_no_state_is_not_told(tmp_path):
    async with running_gateway(tmp_path) as gateway, operator(gateway) as stream:
        for payload in (b"", b"[]", b"{}", b'{"desired":[1]}', b'{"desired":{"a":"\xff"}}', b"{"):
            await stream.publish("state.default.veh-2", payload)
        await set_state(stream, 1)
        async with raw_device(gateway, "veh-2", greet=False) as device:
            assert "state" not in await device.greet(state="")
            await stream.publish("state.default.veh-2", b'{"desired":null}')
            await set_state(stream, 5, "state.default.veh-2")
            assert (await device.hear_named("state"))["desired"] == {"n": 5}


async def test_a_stream_made_anew_reaches_the_devices_that_hold_a_version_of_the_old_one(tmp_path):
    with nats_server(tmp_path / "nats") as server:
        settings = {"nats__urls": (server.url,), "stream__durability": "stream"}
        async with running_gateway(tmp_path, **settings) as gateway:
            client = await nats.connect(server.url)
            stream = client.jetstream()
            for number in range(5):
                await set_state(stream, number)
            async with raw_device(gateway, greet=False) as device:
                old = (await device.greet(state=""))["state"]
                assert old["desired"] == {"n": 4}
                config = (await stream.stream_info("STATE")).config
                await stream.delete_stream("STATE")
                await add_stream(stream, config)
                await set_state(stream, 9)
                new = await device.hear_named("state")
                assert new["desired"] == {"n": 9}
                assert new["version"] != old["version"]
            async with raw_device(gateway, greet=False) as device:
                assert (await device.greet(state=old["version"]))["state"] == new
            async with raw_device(gateway, greet=False) as device:
                assert "state" not in await device.greet(state=new["version"])
            await client.close()


async def test_a_device_that_flaps_during_a_hundred_sets_ends_with_the_newest(tmp_path):
    settings = {"admission__device_knock_burst": 10_000}
    async with running_gateway(tmp_path, **settings) as gateway, operator(gateway) as stream:
        held, numbers = "", []

        def take(state):
            nonlocal held
            held = state["version"]
            numbers.append(state["desired"]["n"])

        async def flap():
            while 100 not in numbers:
                async with raw_device(gateway, greet=False) as device:
                    state = (await device.greet(state=held)).get("state")
                    if state is not None:
                        take(state)
                    with contextlib.suppress(TimeoutError):
                        take(await asyncio.wait_for(device.hear_named("state"), 0.01))

        flapping = asyncio.create_task(flap())
        for number in range(1, 101):
            await set_state(stream, number)
        await within(flapping)
        assert numbers == sorted(set(numbers))
        assert lookups(gateway) <= 1
        assert lookups(gateway, "leader") == 0
