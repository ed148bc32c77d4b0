"""Disasters, short: the same runs as `make disasters`, with fewer messages."""

import random

import pytest

from loadtest.benches.rig import NO_KNOCK_LIMIT, Bench
from loadtest.devices.writers import WriterPlan
from loadtest.errors import LimitError
from loadtest.lab.disasters import HalfOpen
from loadtest.lab.scene import Trial, check, write_through_faults
from loadtest.lab.storage_disasters import Machine
from loadtest.servers.network import BadNetwork
from support.waiting import eventually


@pytest.fixture
def bench(tmp_path):
    return Bench.below(tmp_path)


async def test_a_power_cut_costs_nothing_that_was_acknowledged(bench):
    machine = Machine(bench, "fsync")
    plan = WriterPlan(messages=60)
    trial = Trial(devices=10, plan=plan, faults=1, seed=1, kinds=machine.power_loss)
    try:
        machine.boot()
    except LimitError as exc:
        pytest.skip(str(exc))
    try:
        scene, _seconds = await write_through_faults(bench, machine.gateway, trial)
        assert scene.done == {"power loss": 1}
        assert (await check(machine.gateway.nats_url, scene)).clean
    finally:
        machine.shut_down()


async def test_half_open_connections_leave_nothing_behind(bench):
    with bench.gateway(**NO_KNOCK_LIMIT) as gateway:
        async with BadNetwork.before(gateway.port, delay_s=0.01, rng=random.Random(1)) as network:
            half_open = HalfOpen(network)
            trial = Trial(
                devices=20, plan=WriterPlan(messages=300), faults=3, seed=1,
                kinds=half_open.faults, ports=[network.port],
            )  # fmt: skip
            scene, _seconds = await write_through_faults(bench, gateway, trial)
            assert half_open.hurt > 0
            # The last of them are closed once their devices are back, or by the keepalive.
            await eventually(lambda: gateway.status()["connections"] <= 20)
            assert (await check(gateway.nats_url, scene)).clean


async def test_a_stopped_nats_server_closes_no_connection(bench):
    trial = Trial(
        devices=20, plan=WriterPlan(messages=300), faults=1, seed=1,
        kinds=lambda scene: {"SIGSTOP nats-server": scene.stop_nats},
    )  # fmt: skip
    with bench.gateway() as gateway:
        scene, _seconds = await write_through_faults(bench, gateway, trial)
        assert scene.writers.log.cut == 0
        assert scene.still_s > 1
        assert (await check(gateway.nats_url, scene)).clean
