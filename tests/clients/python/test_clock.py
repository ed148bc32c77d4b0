"""The system's clocks, as the client reads them."""

import asyncio
import time

import pytest

from support.waiting import within
from tidegate import clock as clock_module
from tidegate.clock import Clock


def test_the_machine_says_how_long_it_is_up():
    first, second = Clock().uptime(), Clock().uptime()
    assert first.boot == second.boot != ""
    assert second.ms >= first.ms > 0


def test_without_a_boot_id_the_process_takes_a_name_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(clock_module, "_BOOT_ID_FILE", tmp_path / "missing")
    named = clock_module._boot_id.__wrapped__
    assert len(named()) == 32
    assert named() != named(), "the cache keeps one for a process"


def test_wall_and_monotonic_time_are_the_systems():
    clock = Clock()
    assert time.time() - 60 < clock.wall() < time.time() + 60
    assert clock.monotonic() <= time.monotonic()


async def test_sleep_until_never_ends_early():
    clock = Clock()
    due = clock.monotonic() + 0.001
    await within(clock.sleep_until(due))
    assert clock.monotonic() >= due
    await clock.sleep_until(due - 10)


async def test_a_limit_of_the_real_clock():
    with pytest.raises(TimeoutError):
        async with Clock().limit(0.001):
            await asyncio.Event().wait()
