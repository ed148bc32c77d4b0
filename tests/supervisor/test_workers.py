"""A gateway of two workers, as processes."""

import asyncio
import contextlib
import json
import os
import signal
import socket
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from support.children import alive
from support.commands import tidegate
from support.stored import by_device, read_embedded
from support.waiting import eventually, within
from support.wire import message
from support.workers import QUICK, running_workers
from tidegate import BackoffSettings, Device


@pytest.fixture
async def gateway(tmp_path):
    async with running_workers(tmp_path) as running:
        yield running


def client(gateway, directory, name):
    """The reference client, which comes back when it is refused."""
    backoff = BackoffSettings(first_retry_ms=20, base_ms=10, cap_ms=100, stable_ms=1_000)
    return Device(gateway.url, gateway.token(name), outbox=directory / name, backoff=backoff)


async def spread(gateway, stack, wanted=2):
    """Devices until each worker has one: the name and the connection of one on each node."""
    found = {}
    for number in range(60):
        name = f"veh-{number}"
        device = await stack.enter_async_context(gateway.device(name))
        found.setdefault(await gateway.node_of(name), (name, device))
        if len(found) == wanted:
            return found
    raise AssertionError("one worker has taken all devices")


async def send(device, seq):
    await device.say(message(seq))
    await device.hear_ack(seq)


async def test_workers_share_the_port_a_device_is_taken_over_and_sigterm_ends_everything(gateway):
    children = gateway.children()
    async with contextlib.AsyncExitStack() as stack:
        found = await spread(gateway, stack)
        for _name, device in found.values():
            await send(device, 1)
        page = gateway.page("/status")
        assert page["devices"] == sum(worker["devices"] for worker in page["workers"])
        assert gateway.metric("tidegate_devices") == page["devices"]
        (node, (name, first)), *_ = found.items()
        closed = asyncio.create_task(first.closed())
        while True:
            async with gateway.device(name):
                code, _reason = await closed
                assert code == 4409
                if await gateway.node_of(name) != node:
                    break
                first_again = await stack.enter_async_context(gateway.device(name))
                closed = asyncio.create_task(first_again.closed())
    gateway.signal(signal.SIGTERM)
    assert await gateway.ended() == 0
    assert not any(map(alive, children))
    assert not (gateway.data_dir / "run").exists()
    assert len(gateway.events("worker_stopped")) == 2


async def test_a_worker_that_is_killed_comes_back_and_disturbs_no_other(gateway):
    async with contextlib.AsyncExitStack() as stack:
        found = await spread(gateway, stack)
        for _name, device in found.values():
            await send(device, 1)
        workers = {worker["node"]: worker for worker in gateway.workers()}
        (killed, (_name, lost)), (_other, (_stays, stays)) = found.items()
        admitted = gateway.metric("tidegate_messages_received_total")
        os.kill(workers[killed]["pid"], signal.SIGKILL)
        with contextlib.suppress(ConnectionError):
            await lost.connection.wait_closed()
        await send(stays, 2)
        await gateway.complete()
        await send(stays, 3)
        assert gateway.metric("tidegate_messages_received_total") >= admitted + 2
        assert gateway.metric("tidegate_worker_restarts_total") == 1
        assert gateway.page("/readyz") == {"ready": True, "workers": 2, "workers_not_ready": 0}
        restarts = {worker["worker"]: worker["restarts"] for worker in gateway.workers()}
        assert restarts[workers[killed]["worker"]] == 1
        async with gateway.device(_name) as again:
            assert again.welcome["resume"]["seq"] == 1
    assert gateway.events("worker_died")[0]["reason"] == "it was ended by SIGKILL"


@pytest.mark.long
async def test_orders_reach_the_devices_of_every_worker(gateway):
    ops = f"--ops-url=http://127.0.0.1:{gateway.ops_port}"

    async def command(*arguments):
        done = await asyncio.to_thread(tidegate, *arguments, ops)
        assert done.returncode == 0, done.stderr
        return done.stdout

    async with contextlib.AsyncExitStack() as stack:
        found = await spread(gateway, stack)
        for name, device in found.values():
            assert f"default/{name} is connected" in await command("whois", name)
            await command("disconnect", name)
            assert (await device.closed())[0] == 1012
            assert "revoked on this fleet" in await command("revoke", "--device", name)
    names = {name for name, _device in found.values()}
    listed = (await command("revoke", "--list")).splitlines()
    assert {json.loads(line)["device"] for line in listed} == names
    kept = (gateway.data_dir / "revocations.jsonl").read_text()
    assert all(name in kept for name in names)
    await command("drain")
    assert await gateway.ended() == 0


@pytest.mark.long
async def test_a_full_worker_leaves_devices_to_one_that_has_room(tmp_path):
    few = {"SERVER__CONNECTIONS_MAX": "3", "SERVER__ANONYMOUS_MAX": "50"}
    async with running_workers(tmp_path, **few) as gateway, contextlib.AsyncExitStack() as stack:
        for number in range(6):
            await stack.enter_async_context(gateway.device(f"veh-{number}"))
        assert [worker["devices"] for worker in gateway.workers()] == [3, 3]
        with pytest.raises(InvalidStatus) as refused:
            await stack.enter_async_context(gateway.device("veh-6"))
        assert json.loads(refused.value.response.body)["reason"] == "capacity"


async def test_nothing_of_a_supervisor_that_is_killed_is_left(gateway):
    """Not even a worker that hangs: it has the port, which the next supervisor needs."""
    children = gateway.children()
    assert len(children) == 4  # two workers, nats-server, Redis
    os.kill(gateway.workers()[0]["pid"], signal.SIGSTOP)
    gateway.kill()
    await eventually(lambda: not any(map(alive, children)), "the end of all children")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", gateway.port))
        taken.listen()
    await asyncio.to_thread(gateway.start)
    await gateway.complete()


async def test_a_rolling_restart_replaces_each_worker_and_loses_nothing(gateway, tmp_path):
    before = gateway.pids()
    ops = f"--ops-url=http://127.0.0.1:{gateway.ops_port}"
    async with contextlib.AsyncExitStack() as stack:
        devices = [
            await stack.enter_async_context(client(gateway, tmp_path, f"veh-{number}"))
            for number in range(8)
        ]
        restarting = asyncio.create_task(asyncio.to_thread(tidegate, "restart-workers", ops))
        sent = 0
        while not restarting.done():
            sent += 1
            for device in devices:
                await device.send("a", sent)
            await asyncio.wait({restarting}, timeout=0.1)
        for device in devices:
            await within(device.flush())
    done = restarting.result()
    assert done.returncode == 0, done.stderr
    stored = by_device(await read_embedded(gateway.data_dir))
    assert [*stored.values()] == [list(range(1, sent + 1))] * 8
    after = gateway.pids()
    assert not set(before) & set(after)
    assert not any(map(alive, before))
    assert sum(worker["restarts"] for worker in gateway.workers()) == 0
    gateway.signal(signal.SIGUSR1)
    await eventually(lambda: len(gateway.events("rolling_restart")) == 2)


@pytest.mark.long
async def test_redis_that_dies_is_started_again_and_admission_goes_on(gateway, tmp_path):
    redis = next(pid for pid in gateway.children() if "redis-server" in _command(pid))
    os.kill(redis, signal.SIGKILL)
    async with client(gateway, tmp_path, "veh-1") as device:
        await device.send("a", 1)
        await within(device.flush())
    await eventually(lambda: gateway.events("redis_server_restarted"))
    await gateway.complete()
    assert gateway.metric("tidegate_redis_server_restarts_total") == 1


def _command(pid):
    return Path(f"/proc/{pid}/cmdline").read_text()


def serve(tmp_path, *arguments, **settings):
    more = {f"TIDEGATE_{name}": value for name, value in {**QUICK, **settings}.items()}
    return tidegate("serve", "--workers=2", f"--data-dir={tmp_path}", *arguments, **more)


async def test_a_worker_that_cannot_start_stops_the_start_with_its_reason(tmp_path):
    (tmp_path / "keys.json").write_text("{")
    keys = {"CREDENTIALS__JWKS_FILE": str(tmp_path / "keys.json")}
    done = await asyncio.to_thread(serve, tmp_path, "--port=0", "--ops-port=0", **keys)
    assert done.returncode == 1
    said = f"cannot start: JWKS {tmp_path / 'keys.json'}: not JSON"
    assert said in done.stderr.splitlines()[-1]


async def test_a_port_that_another_program_holds_stops_the_start(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = await asyncio.to_thread(serve, tmp_path, f"--port={port}", "--ops-port=0")
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in done.stderr.splitlines()[-1]
