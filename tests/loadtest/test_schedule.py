"""The schedule of the simulator gives out what is due first, as one heap of everything would."""

import dataclasses
import heapq
import itertools
import math
import random

import pytest

from loadtest.schedule import Schedule, in_order


@dataclasses.dataclass
class Item:
    at: float
    number: int


@pytest.mark.parametrize("seed", range(50))
def test_items_come_out_by_time_and_then_in_the_order_in_which_they_were_added(seed):
    rng = random.Random(seed)
    schedule, heap, numbers = Schedule(), [], itertools.count()
    now = 0.0
    for _ in range(400):
        if heap and rng.random() < 0.5:
            assert schedule.next_at == heap[0][0]
            now, number = heapq.heappop(heap)
            assert schedule.pop().number == number
        else:
            at = now + rng.choice([0.0, 0.001, rng.random(), 100 * rng.random()])
            number = next(numbers)
            heapq.heappush(heap, (at, number))
            schedule.add(Item(at, number))
    while heap:
        assert schedule.pop().number == heapq.heappop(heap)[1]
    assert schedule.next_at == math.inf


def test_times_are_put_in_order_also_across_moments():
    rng = random.Random(1)
    times = [0.0, 7.0, 7.0, *(rng.expovariate(1.0) for _ in range(500))]
    assert list(in_order(times)) == sorted(times)
    assert list(in_order([])) == []
