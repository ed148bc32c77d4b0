"""Fault runs, short: an honest gateway is clean, and each broken promise is caught."""

import asyncio
import random
import sys
from pathlib import Path

import pytest

from loadtest.benches.rig import Bench
from loadtest.devices.credentials import Issuer
from loadtest.devices.writers import WriterPlan
from loadtest.lab.faults import Scene, check, write_through_faults
from loadtest.servers.targets import GatewayServer
from loadtest.verdicts import Report

BROKEN = Path(__file__).parents[2] / "support" / "broken.py"


class BrokenGateway(GatewayServer):
    def __init__(self, mode, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.mode = mode

    def command(self):
        command = super().command()
        return [sys.executable, str(BROKEN), self.mode, *command[command.index("serve") :]]


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path, Issuer(tmp_path / "jwks.json"), 0.0, Report())


async def damage(bench, gateway, *, faults=3, messages=400, **plan):
    """What the checker finds after a run in which the gateway is killed several times."""
    wanted = WriterPlan(messages=messages, **plan)

    def only_kills(scene):
        scene.faults = {"kill -9 gateway": scene.kill_gateway}

    with gateway:
        scene, _seconds = await write_through_faults(
            bench, gateway, devices=20, plan=wanted, faults=faults, seed=3, arrange=only_kills
        )
        assert sum(scene.done.values()) == faults
        checker = await check(gateway.nats_url, scene.writers)
    return {name: found.count for name, found in checker.findings()}


@pytest.mark.long
async def test_an_honest_gateway_is_clean(bench):
    found = await damage(bench, bench.gateway())
    assert found == {"lost": 0, "duplicated": 0, "reordered": 0, "corrupted": 0}


async def test_all_kinds_of_faults_leave_it_clean(bench):
    with bench.gateway() as gateway:
        scene, _seconds = await write_through_faults(
            bench, gateway, devices=20, plan=WriterPlan(messages=500), faults=4, seed=11
        )
        assert len(scene.done) >= 2
        assert (await check(gateway.nats_url, scene.writers)).clean


def broken(bench, mode, tmp_path, **settings):
    defaults = {
        "log__level": "warning",
        "admission__rate_per_s": 100_000,
        "admission__burst": 100_000,
        "session__first_retry_min_ms": 10,
    }
    return BrokenGateway(
        mode, tmp_path / mode, jwks_file=bench.issuer.jwks_file, **defaults, **settings
    )


@pytest.mark.long
async def test_without_message_ids_something_is_stored_twice(bench, tmp_path):
    found = await damage(bench, broken(bench, "no-id", tmp_path), faults=5)
    assert found["duplicated"] > 0


@pytest.mark.long
async def test_an_ack_before_the_puback_loses_something(bench, tmp_path):
    found = await damage(bench, broken(bench, "ack-early", tmp_path), faults=5)
    assert found["lost"] > 0


@pytest.mark.long
async def test_a_duplicate_window_of_a_second_stores_something_twice(bench, tmp_path):
    """Without the look-up that makes the window's length harmless."""
    gateway = broken(bench, "no-resume", tmp_path, stream__duplicate_window_s=1)
    found = await damage(bench, gateway, faults=5)
    assert found["duplicated"] > 0


@pytest.mark.long
async def test_a_duplicate_window_of_a_second_is_harmless_with_the_look_up(bench):
    found = await damage(bench, bench.gateway(stream__duplicate_window_s=1), faults=4)
    assert found == {"lost": 0, "duplicated": 0, "reordered": 0, "corrupted": 0}


WINDOW_S = 1
FORGETFUL = {"honest_age": False, "outboxes": ("a", "b"), "forgets": 500}
"""Older copies of two outboxes each, and a clock in 1970."""


async def forgetful_damage(bench, gateway):
    """What is found after devices lost their connections again and again, each time when the
    stream has forgotten the ids of most of what their older copies send again.
    """

    def late_cuts(scene):
        async def cut():
            await asyncio.sleep(WINDOW_S * 1.1)
            await scene.cut()

        scene.faults = {"late cut": cut}

    with gateway:
        plan = WriterPlan(messages=500, **FORGETFUL)
        scene, _seconds = await write_through_faults(
            bench, gateway, devices=10, plan=plan, faults=3, seed=3, arrange=late_cuts
        )
        checker = await check(gateway.nats_url, scene.writers)
    return {name: found.count for name, found in checker.findings()}


async def test_older_copies_of_two_outboxes_and_no_clock_store_nothing_twice(bench):
    gateway = bench.gateway(stream__duplicate_window_s=WINDOW_S)
    found = await forgetful_damage(bench, gateway)
    assert found == {"lost": 0, "duplicated": 0, "reordered": 0, "corrupted": 0}


async def test_older_copies_store_something_twice_without_the_look_up(bench, tmp_path):
    gateway = broken(bench, "no-resume", tmp_path, stream__duplicate_window_s=WINDOW_S)
    found = await forgetful_damage(bench, gateway)
    assert found["duplicated"] > 0


def test_a_seed_is_a_run():
    def faults(seed):
        scene = Scene(None, [], None, random.Random(seed))
        return [scene._rng.choice(sorted(scene.faults)) for _ in range(20)]

    assert faults(5) == faults(5) != faults(6)
