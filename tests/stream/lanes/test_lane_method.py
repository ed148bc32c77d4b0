"""How a lane publishes a batch, as far as it depends on what batches took before."""

import pytest

from gateway.stream.lanes.batch import Batch, Kind, Strategy
from gateway.stream.lanes.lane_method import Method, SyncTimes
from support.lanes import Owner, pending


def batch(kind, messages):
    items = [pending(Owner(f"d{number}"), 1) for number in range(messages)]
    return Batch(1, kind, items, 0.0)


def times(*taken):
    known = SyncTimes()
    for kind, messages, took_s in taken:
        known.took(batch(kind, messages), took_s)
    return known


@pytest.mark.parametrize(
    ("taken", "atomic_min"),
    [
        ([], 16),
        ([(Kind.ROUND, 5, 0.5)], 16),
        ([(Kind.ATOMIC, 20, 0.001)], 16),
        ([(Kind.ROUND, 10, 0.010), (Kind.ATOMIC, 20, 0.0095)], 10),
        ([(Kind.ROUND, 10, 0.003), (Kind.ATOMIC, 20, 0.020)], 16),
        ([(Kind.ROUND, 10, 0.100), (Kind.ATOMIC, 20, 0.010)], 4),
        ([(Kind.ROUND, 10, 0.010), (Kind.ATOMIC, 20, 0.010), (Kind.ATOMIC, 3_000, 0.1)], 10),
        ([(Kind.ROUND, 10, 0.010), (Kind.ATOMIC, 20, 0.010), (Kind.LINKED, 20, 0.1)], 10),
    ],
)
def test_the_smallest_atomic_batch_is_as_large_as_it_pays(taken, atomic_min):
    assert times(*taken).atomic_min == atomic_min


def test_what_batches_take_now_counts_more_than_what_they_took():
    known = times((Kind.ATOMIC, 20, 0.010), *[(Kind.ROUND, 10, 0.001)] * 20)
    assert known.atomic_min == 16
    for _ in range(4):
        known.took(batch(Kind.ROUND, 10), 0.020)
    assert 4 < known.atomic_min < 10
    for _ in range(20):
        known.took(batch(Kind.ROUND, 10), 0.001)
    assert known.atomic_min == 16


@pytest.mark.parametrize(("messages", "kind"), [(9, Kind.ROUND), (10, Kind.ATOMIC)])
def test_messages_of_several_devices_are_an_atomic_batch_where_that_pays(messages, kind):
    method = Method()
    method.strategy = Strategy.ATOMIC
    assert method.kind_of(batch(Kind.SINGLE, messages)) is Kind.ROUND
    method.times = times((Kind.ROUND, 10, 0.010), (Kind.ATOMIC, 20, 0.010))
    assert method.kind_of(batch(Kind.SINGLE, messages)) is kind
