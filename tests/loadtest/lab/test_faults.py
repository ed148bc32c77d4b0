"""Fault runs, short: an honest gateway is clean, and each broken promise is caught."""

import asyncio
import random
import sys
from functools import partial
from pathlib import Path

import pytest

from loadtest.benches.rig import OPEN_DOOR, Bench
from loadtest.devices.writers import WriterPlan
from loadtest.lab.faults import worker_faults
from loadtest.lab.scene import Scene, Trial, check, usual_faults, write_through_faults
from loadtest.servers.gateway import GatewayServer

BROKEN = Path(__file__).parents[2] / "support" / "broken.py"
SETTLE_S = 60.0
"""A run that stalls fails and names what is missing, before `pytest-timeout` ends the worker."""
CLEAN = {"lost": 0, "duplicated": 0, "reordered": 0, "corrupted": 0}


class BrokenGateway(GatewayServer):
    def __init__(self, mode, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.mode = mode

    def command(self):
        command = super().command()
        return [sys.executable, str(BROKEN), self.mode, *command[command.index("serve") :]]


@pytest.fixture
def bench(tmp_path):
    return Bench.below(tmp_path)


async def damage(bench, gateway, trial):
    """What the checker finds after a run in which every fault of the trial happened."""
    with gateway:
        scene, _seconds = await write_through_faults(bench, gateway, trial)
        assert sum(scene.done.values()) == trial.faults
        checker = await check(gateway.nats_url, scene)
    return {name: found.count for name, found in checker.findings()}


def only_kills(scene):
    return {"kill -9 gateway": scene.kill_gateway}


def kills(faults):
    """A run in which the gateway is killed so often."""
    plan = WriterPlan(messages=400)
    return Trial(
        devices=20, plan=plan, faults=faults, seed=3, kinds=only_kills, settle_timeout_s=SETTLE_S
    )


def each_once(happened, scene):
    """A fault that is the next kind of the usual ones each time."""
    faults = usual_faults(scene) | {"SIGSTOP nats-server": partial(scene.stop_nats, 1.0)}
    return in_turn(happened, faults)


def in_turn(happened, faults):
    left = sorted(faults)

    async def next_kind():
        happened.append(left.pop())
        await faults[happened[-1]]()

    return {"the next kind": next_kind}


@pytest.mark.long
async def test_all_kinds_of_faults_leave_it_clean(bench):
    happened = []
    plan = WriterPlan(messages=200)
    trial = Trial(
        devices=20,
        plan=plan,
        faults=4,
        seed=11,
        kinds=partial(each_once, happened),
        settle_timeout_s=SETTLE_S,
    )
    assert await damage(bench, bench.gateway(), trial) == CLEAN
    assert sorted(happened) == [
        "SIGSTOP nats-server", "cut connections", "kill -9 gateway", "kill -9 nats-server",
    ]  # fmt: skip


@pytest.mark.long
async def test_all_kinds_of_faults_of_workers_leave_it_clean(bench):
    happened = []
    trial = Trial(
        devices=20,
        plan=WriterPlan(messages=200),
        faults=4,
        seed=11,
        kinds=lambda scene: in_turn(happened, worker_faults(scene.gateway, scene.rng)),
        settle_timeout_s=SETTLE_S,
    )
    assert await damage(bench, bench.workers(2), trial) == CLEAN
    assert sorted(happened) == [
        "SIGSTOP worker", "kill -9 redis-server", "kill -9 worker", "rolling restart",
    ]  # fmt: skip


@pytest.mark.long
async def test_an_honest_gateway_is_clean(bench):
    assert await damage(bench, bench.gateway(), kills(3)) == CLEAN


def broken(bench, mode, **settings):
    directory = bench.fresh_directory(mode)
    settings = {**OPEN_DOOR, **settings}
    return BrokenGateway(mode, directory, jwks_file=bench.issuer.jwks_file, **settings)


@pytest.mark.long
async def test_without_message_ids_something_is_stored_twice(bench):
    found = await damage(bench, broken(bench, "no-id"), kills(5))
    assert found["duplicated"] > 0


@pytest.mark.long
async def test_an_ack_before_the_puback_loses_something(bench):
    found = await damage(bench, broken(bench, "ack-early"), kills(5))
    assert found["lost"] > 0


@pytest.mark.long
async def test_a_duplicate_window_of_a_second_stores_something_twice(bench):
    """Without the look-up that makes the window's length harmless."""
    gateway = broken(bench, "no-resume", stream__duplicate_window_s=1)
    found = await damage(bench, gateway, kills(5))
    assert found["duplicated"] > 0


@pytest.mark.long
async def test_a_duplicate_window_of_a_second_is_harmless_with_the_look_up(bench):
    gateway = bench.gateway(stream__duplicate_window_s=1)
    assert await damage(bench, gateway, kills(4)) == CLEAN


WINDOW_S = 1
FORGETFUL = WriterPlan(messages=500, honest_age=False, outboxes=("a", "b"), forgets=500)
"""Older copies of two outboxes each, and a clock in 1970."""


def late_cuts(scene):
    """Connections cut when the stream has forgotten the ids of most of what is sent again."""

    async def cut():
        await asyncio.sleep(WINDOW_S * 1.1)
        await scene.cut()

    return {"late cut": cut}


LATE_CUTS = Trial(
    devices=10, plan=FORGETFUL, faults=3, seed=3, kinds=late_cuts, settle_timeout_s=SETTLE_S
)


async def test_older_copies_of_two_outboxes_and_no_clock_store_nothing_twice(bench):
    gateway = bench.gateway(stream__duplicate_window_s=WINDOW_S)
    assert await damage(bench, gateway, LATE_CUTS) == CLEAN


@pytest.mark.long
async def test_older_copies_store_something_twice_without_the_look_up(bench):
    gateway = broken(bench, "no-resume", stream__duplicate_window_s=WINDOW_S)
    found = await damage(bench, gateway, LATE_CUTS)
    assert found["duplicated"] > 0


async def test_the_same_seed_picks_the_same_faults():
    async def picked(seed):
        happened = []

        async def happen(name):
            happened.append(name)

        scene = Scene(None, None, random.Random(seed))
        faults = {name: partial(happen, name) for name in usual_faults(scene)}
        for _ in range(20):
            await scene.break_one(faults)
        assert sum(scene.done.values()) == 20
        return happened

    assert await picked(5) == await picked(5) != await picked(6)
