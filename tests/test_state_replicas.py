"""States on a stream with three replicas, of which one stands still now and then."""

import asyncio
import contextlib
import json
import signal

import nats
import nats.errors
import pytest

from loadtest.servers.backends import nats_cluster
from support.gateways import running_gateway
from support.waiting import within
from support.wire import raw_device


@pytest.mark.long
async def test_a_device_ends_with_the_newest_state_although_replicas_lag(tmp_path):
    servers = list(nats_cluster(tmp_path / "cluster", 3).values())
    with contextlib.ExitStack() as stack:
        for server in servers:
            server.launch()
            stack.callback(server.stop)
        for server in servers:
            server.wait_until_up()
        settings = {
            "nats__urls": (servers[0].url,),
            "stream__durability": "stream",
            "stream__replicas": 3,
            "admission__device_knock_burst": 10_000,
            "session__state_cache_bytes": 65_536,
        }
        async with running_gateway(tmp_path / "gateway", **settings) as gateway:
            client = await nats.connect(servers[0].url)
            stream = client.jetstream()
            done, numbers, held = asyncio.Event(), [], ""

            async def flap():
                nonlocal held
                while not done.is_set() or numbers[-1] < 50:
                    async with raw_device(gateway, greet=False) as device:
                        state = (await device.greet(state=held)).get("state")
                        if state is None:
                            with contextlib.suppress(TimeoutError):
                                state = await asyncio.wait_for(device.hear_named("state"), 0.05)
                        if state is not None:
                            held = state["version"]
                            numbers.append(state["desired"]["n"])

            flapping = asyncio.create_task(flap())
            for number in range(1, 51):
                lagging = servers[1 + number % 2]
                lagging.send_signal(signal.SIGSTOP)
                payload = json.dumps({"desired": {"n": number}}).encode()
                with contextlib.suppress(nats.errors.Error):  # its leader stands still
                    await stream.publish("state.default.veh-1", payload, timeout=0.3)
                lagging.send_signal(signal.SIGCONT)
            await within(_set_at_last(stream))
            done.set()
            await within(flapping)
            assert numbers[-1] == 50
            assert numbers == sorted(numbers)
            await client.close()


async def _set_at_last(stream):
    while True:
        with contextlib.suppress(nats.errors.Error):
            await stream.publish("state.default.veh-1", b'{"desired":{"n":50}}')
            return
