"""A real Prometheus scrapes a storm, a sink and a rule; every panel's query returns data."""

import asyncio
import contextlib
import random
import subprocess

from loadtest.devices.credentials import Issuer
from loadtest.devices.crowd import Crowd
from loadtest.servers.receiver import Receiver
from support.commands import spawned_tidegate
from support.dashboards import queries
from support.gateways import running_gateway
from support.prometheus import free_port, prometheus
from support.servers import redis_server
from support.waiting import eventually
from support.wire import message, raw_device

DEVICES = 40
STORM = {
    "admission__rate_per_s": 8.0,
    "admission__rate_floor_per_s": 8.0,
    "admission__burst": 1,
    "admission__park_ms": 0,
    "admission__device_knock_burst": 10_000,
}
EVENTS = """\
[[sink]]
name = "log"
kind = "files"
directory = "{directory}/rows"
linger_ms = 5

[[rule]]
name = "low"
from = "start"
when = {{ type = ["battery.low"] }}
to = "{url}"
"""


async def send(gateway, token):
    """A device that sends a message at a time for as long as the test lasts."""
    async with raw_device(gateway, "steady", token=token) as device:
        for seq in range(1, 1_000_000):
            await device.say(message(seq))
            await device.hear_ack(seq)
            await asyncio.sleep(0.02)


@contextlib.contextmanager
def consumers(gateway, directory, url):
    """`tidegate sink` and `tidegate route`: their ports."""
    events = directory / "events.toml"
    events.write_text(EVENTS.format(directory=directory, url=url))
    nats_url = (gateway.data_dir / "nats" / "consumers.url").read_text().strip()
    ports = {"sink": free_port(), "route": free_port()}
    with contextlib.ExitStack() as stack:
        for command, port in ports.items():
            arguments = [command, "--events", events, "--nats-url", nats_url, "--ops-port", port]
            log = stack.enter_context((directory / f"{command}.log").open("wb"))
            given = {"stdout": log, "stderr": subprocess.STDOUT}
            stack.enter_context(spawned_tidegate(*arguments, **given))
        yield ports["sink"], ports["route"]


async def test_every_query_of_every_panel_returns_data_in_a_storm(tmp_path):
    issuer = Issuer(tmp_path / "jwks.json")
    with redis_server() as redis:
        settings = {
            **STORM,
            "credentials__jwks_file": issuer.jwks_file,
            "cluster__redis_url": redis.url,
            "session__first_retry_min_ms": 500,
        }
        async with (
            Receiver(random.Random(1)) as receiver,
            running_gateway(tmp_path / "node", **settings) as gateway,
        ):
            with (
                consumers(gateway, tmp_path, receiver.url) as (sink, route),
                prometheus(
                    tmp_path / "prometheus", {9090: gateway.ops_port, 9091: sink, 9092: route}
                ) as server,
            ):
                await answered(server, gateway, issuer)


async def answered(server, gateway, issuer):
    """Wait until each query has returned data at some moment of the storm."""
    missing = list(queries())
    crowd = Crowd(issuer, DEVICES, [gateway.port], "ticket", first_retry_ms=500)
    background = [
        asyncio.create_task(send(gateway, issuer.token("steady"))),
        asyncio.create_task(crowd.run(60.0)),
    ]

    async def look():
        for query in list(missing):
            if await asyncio.to_thread(server.figures, query.filled):
                missing.remove(query)
        failed = [task for task in background if task.done() and task.exception() is not None]
        assert not failed, failed
        return not missing

    try:
        await eventually(look, "data of every panel")
    except AssertionError:
        raise AssertionError(f"no data: {missing}") from None
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await crowd.stop()
