"""Faults are tried equally often, and a seed repeats their order."""

import random

import pytest

from loadtest.errors import TargetError
from loadtest.lab import fault_mix
from loadtest.lab.fault_mix import FaultMix, Position


def mix_of(names, tried, seed=3):
    def fault(name):
        async def one():
            tried.append(name)

        return one

    return FaultMix({name: fault(name) for name in names}, random.Random(seed))


async def order(count, seed):
    tried: list[str] = []
    mix = mix_of("abcd", tried, seed)
    for _ in range(count):
        await mix.next()
    assert mix.done.total() == count
    return tried


async def test_each_kind_is_tried_before_any_is_repeated():
    tried = await order(12, seed=3)
    for first in (0, 4, 8):
        assert sorted(tried[first : first + 4]) == list("abcd")


async def test_a_seed_repeats_the_order_and_another_does_not():
    assert await order(12, seed=3) == await order(12, seed=3)
    assert len({tuple(await order(12, seed)) for seed in range(5)}) > 1


async def test_only_some_kinds():
    tried: list[str] = []
    mix = mix_of("abcd", tried)
    mix.only({"b"})
    await mix.next()
    await mix.next()
    assert tried == ["b", "b"]


async def test_a_position_that_is_not_reached_names_the_faults(monkeypatch):
    monkeypatch.setattr(fault_mix, "_SETTLE_TIMEOUT_S", 0.0)
    mix = mix_of("a", [])
    await mix.next()
    with pytest.raises(TargetError, match=r"position 5, 6 wanted.*\{'a': 1\}"):
        await Position(lambda: 5, mix).reached(6)
    await Position(lambda: 6, mix).reached(6)
