"""Disasters, short: the same runs as `make disasters`, with fewer messages."""

import asyncio
import random

import pytest

from loadtest.benches.rig import Bench
from loadtest.devices.credentials import Issuer
from loadtest.devices.writers import WriterPlan
from loadtest.errors import LimitError
from loadtest.lab.disasters import Machine
from loadtest.lab.faults import check, write_through_faults
from loadtest.servers.network import BadNetwork
from loadtest.verdicts import Report
from support.waiting import eventually


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path, Issuer(tmp_path / "jwks.json"), 0.0, Report())


async def test_a_power_cut_costs_nothing_that_was_acknowledged(bench):
    machine = Machine(bench, "fsync")

    async def power_loss():
        await asyncio.to_thread(machine.lose_power)
        await asyncio.to_thread(machine.boot)

    def arrange(scene):
        scene.faults = {"power loss": power_loss}

    try:
        machine.boot()
    except LimitError as exc:
        pytest.skip(str(exc))
    try:
        scene, _seconds = await write_through_faults(
            bench, machine.gateway, devices=10, plan=WriterPlan(messages=200), faults=1, seed=1,
            arrange=arrange,
        )  # fmt: skip
        assert scene.done == {"power loss": 1}
        assert (await check(machine.gateway.nats_url, scene.writers)).clean
    finally:
        machine.shut_down()


async def test_peers_gone_without_a_word_leave_nothing_behind(bench):
    rng = random.Random(1)
    with bench.gateway(admission__device_knock_burst=1_000) as gateway:
        async with BadNetwork.before(gateway.port, delay_s=0.01, rng=rng) as network:
            hurt = []

            async def half_open():
                hurt.append(network.half_open(0.5))

            def arrange(scene):
                scene.faults = {"half-open": half_open}

            scene, _seconds = await write_through_faults(
                bench, gateway, devices=20, plan=WriterPlan(messages=300), faults=3, seed=1,
                arrange=arrange, ports=[network.port],
            )  # fmt: skip
            assert sum(hurt) > 0
            # The last of them are closed once their devices are back, or by the keepalive.
            await eventually(lambda: gateway.status()["connections"] <= 20)
            assert (await check(gateway.nats_url, scene.writers)).clean


async def test_a_stopped_nats_server_closes_nobody(bench):
    with bench.gateway() as gateway:

        def arrange(scene):
            scene.faults = {"SIGSTOP nats-server": scene.stop_nats}

        scene, _seconds = await write_through_faults(
            bench, gateway, devices=20, plan=WriterPlan(messages=300), faults=1, seed=1,
            arrange=arrange,
        )  # fmt: skip
        assert scene.log.cut == 0
        assert scene.still_s > 1
        assert (await check(gateway.nats_url, scene.writers)).clean
