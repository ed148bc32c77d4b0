"""A gateway stops in every state: told at each await of its start, and while NATS dies with it."""

import asyncio
import os
import signal

import pytest

from gateway.app import Gateway
from gateway.settings import load_settings
from gateway.stream.errors import ServerError
from gateway.stream.server import nats_server as nats_server_module
from loadtest.servers.certificates import make_certificate
from support.gateways import running_gateway
from support.processes import GatewayProcess
from support.servers import nats_server
from support.suspensions import hooked, hooked_task, others
from support.waiting import eventually, within
from support.wire import message, raw_device


def make(directory, **more):
    overrides = {"server.port": 0, "ops.port": 0, "nats.data_dir": directory, **more}
    return Gateway(load_settings(None, environment={}, overrides=overrides))


def left_behind(directory):
    return [name for name in ("pid", "gateway.url") if (directory / "nats" / name).exists()]


@pytest.mark.parametrize("part", ["gateway", pytest.param("backbone", marks=pytest.mark.long)])
async def test_it_stops_whichever_await_of_its_start_it_is_told_at(tmp_path, part):
    reached, at = True, 0
    while reached:
        gateway, told = make(tmp_path), []

        def tell(gateway=gateway, told=told):
            told.append(gateway.drain())

        if part == "gateway":
            gateway.lifecycle.start = hooked(gateway.lifecycle.start, at, tell)
        with hooked_task(part, at, tell):  # the backbone is a task of its own
            await within(gateway.run(on_ready=Gateway.drain))
        reached = bool(told)
        assert gateway.not_ready() == "stopped"
        assert left_behind(tmp_path) == []
        await eventually(lambda: others() == set(), f"the end of all tasks, await {at}")
        at += 1
    assert at > 2


async def test_it_stops_whichever_await_of_its_drain_nats_dies_at(tmp_path, monkeypatch):
    """And what it holds cannot be stored any more, because NATS does not come back."""
    there, died = nats_server_module.find_binary, []

    def find_binary():
        if died:
            raise ServerError("deleted")
        return there()

    monkeypatch.setattr(nats_server_module, "find_binary", find_binary)
    reached, at = True, 0
    while reached:
        died.clear()
        settings = {"drain__flush_timeout_ms": 200, "drain__linger_ms": 0}
        async with running_gateway(tmp_path, **settings) as gateway:

            def die(server=gateway.storage.backbone.server.server):
                died.append(os.kill(server.pid, signal.SIGKILL))

            gateway.lifecycle.draining.run = hooked(gateway.lifecycle.draining.run, at, die)
            async with raw_device(gateway, outbox=f"box{at}") as device:
                os.kill(gateway.storage.backbone.server.server.pid, signal.SIGSTOP)
                await device.say([message(seq) for seq in range(1, 31)])
                await eventually(lambda g=gateway: g.status()["pending"]["messages"] == 30)
                os.kill(gateway.storage.backbone.server.server.pid, signal.SIGCONT)
                await within(gateway.stop())
        reached = bool(died)
        assert left_behind(tmp_path) == []
        at += 1
    assert at > 1


async def test_it_stops_while_nats_is_away_and_while_it_refuses(tmp_path):
    with nats_server(tmp_path / "nats", authorization={"token": "s3cr3t-token"}) as server:
        for url in (server.url, "nats://127.0.0.1:1"):
            gateway = make(tmp_path / "data", **{"nats.urls": (url,)})
            running = asyncio.create_task(gateway.run())
            await eventually(
                lambda g=gateway: (
                    g.status()["stream"]["last_error"] not in (None, "not connected yet")
                )
            )
            gateway.drain()
            await within(running)
            await eventually(lambda: others() == set())


async def test_it_stops_while_a_tls_handshake_is_not_finished(tmp_path):
    files = make_certificate(tmp_path / "tls")
    options = {"tls__cert_file": files.cert, "tls__key_file": files.key}
    async with running_gateway(tmp_path / "data", **options) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"\x16\x03\x01")  # the beginning of a ClientHello
        await eventually(lambda: gateway.devices.port.listener.opening)
        await within(gateway.stop())
        assert await within(reader.read()) == b""
        writer.close()


async def test_a_signal_to_the_whole_group_ends_it(tmp_path):
    """A service manager signals every process at once: the connection ends as the stop begins."""
    gateway = GatewayProcess(tmp_path)
    for number in (signal.SIGTERM, signal.SIGINT):
        gateway.start()
        try:
            nats_pid = gateway.nats_pid
            os.kill(nats_pid, number)
            gateway.signal(number)
            assert await gateway.ended() == 0
            assert left_behind(gateway.data_dir) == []
        finally:
            gateway.stop()
