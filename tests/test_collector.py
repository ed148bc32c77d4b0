"""The cyclic collector: passes are small, and garbage never exceeds its bound."""

import asyncio
import gc
import sys
import weakref

import pytest

from gateway.collector import CalmCollector, Measure, measures, resident_bytes
from support.waiting import eventually


class Knot:
    def __init__(self):
        self.itself = self


class Node:
    """What a collector sees of a gateway."""

    def __init__(self):
        self.memory = 1_000
        self.connections = 0
        self.now = 0.0

    def collector(self, **measure):
        return CalmCollector(
            [Measure(lambda: self.memory, **{"each": 10, "slack": 100, **measure})],
            connections=lambda: self.connections,
            clock=lambda: self.now,
        )


@pytest.fixture
def node():
    return Node()


@pytest.fixture
def start():
    started = []

    def do(collector):
        started.append(collector)
        collector.start()
        return collector

    yield do
    for collector in started:
        collector.stop()


def test_a_young_pass_visits_the_young_only(node, start):
    start(node.collector())
    visited = []

    def on_pass(phase, info):
        if phase == "start":
            visited.append((info["generation"], len(gc.get_objects(generation=0))))

    gc.callbacks.append(on_pass)
    try:
        kept = [[] for _ in range(50_000)]
    finally:
        gc.callbacks.remove(on_pass)
    assert len(visited) > 10
    assert {generation for generation, _count in visited} == {0}
    assert max(count for _generation, count in visited) < 5_000
    assert kept


def test_what_the_process_started_with_is_never_visited(node, start):
    before = [Knot() for _ in range(100)]
    start(node.collector())
    assert gc.get_freeze_count() > 10_000
    assert not any(each is before[0] for each in gc.get_objects())


def old_knots(count):
    """Garbage in cycles that a young pass no longer visits."""
    knots = [Knot() for _ in range(count)]
    gc.collect(0)
    return [weakref.ref(knot) for knot in knots]


def gone(references):
    return all(reference() is None for reference in references)


@pytest.mark.parametrize(
    ("grown", "connections", "passes"),
    [
        (250, 0, False),  # a quarter of what was left
        (251, 0, True),
        (1_250, 100, False),  # a hundred connections explain 1,000
        (1_251, 100, True),
    ],
)
def test_growth_that_nothing_explains_is_followed_by_a_pass_over_everything(
    node, start, grown, connections, passes
):
    collector = start(node.collector())
    garbage = old_knots(10)
    node.memory += grown
    node.connections = connections
    collector.look()
    assert gone(garbage) == passes


def test_no_pass_is_due_because_connections_ended_and_their_memory_is_still_there(node, start):
    collector = start(node.collector())
    garbage = old_knots(10)
    node.memory += 1_250
    node.connections = 100
    collector.look()
    node.connections = 0
    collector.look()
    assert not gone(garbage)
    node.memory += 1
    collector.look()
    assert gone(garbage)


def test_a_small_process_may_grow_by_the_slack(node, start):
    collector = start(node.collector(slack=1_000))
    garbage = old_knots(10)
    node.memory += 1_000
    collector.look()
    assert not gone(garbage)
    node.memory += 1
    collector.look()
    assert gone(garbage)


def test_growth_is_counted_from_the_last_pass(node, start):
    collector = start(node.collector())
    node.memory = 2_000
    collector.look()
    garbage = old_knots(10)
    node.memory = 2_500
    collector.look()
    assert not gone(garbage)
    node.memory = 2_501
    collector.look()
    assert gone(garbage)


def test_a_pass_that_costs_nothing_is_made_each_minute(node, start):
    collector = start(node.collector())
    garbage = old_knots(10)
    node.now = 60.0
    collector.look()
    assert not gone(garbage)
    node.now = 60.1
    node.connections = 1_000
    collector.look()
    assert not gone(garbage), "with so many connections it would cost something"
    node.connections = 100
    collector.look()
    assert not gone(garbage), "those that have just ended may not be freed yet"
    collector.look()
    assert gone(garbage)


def test_real_garbage_is_bounded_by_real_memory(start):
    """Connections leave cycles again and again: the garbage stays bounded."""
    blocks = measures(tls=False)[0]
    assert blocks.read is sys.getallocatedblocks
    collector = start(
        CalmCollector([Measure(blocks.read, blocks.each, slack=50_000)], connections=lambda: 0)
    )
    before = blocks.read()
    bound = max(50_000, before * 0.25)
    most = 0
    for _ in range(200):
        old_knots(2_000)  # with their dictionaries, 800,000 blocks in all
        collector.look()
        most = max(most, blocks.read() - before)
    assert most < bound + 20_000


def test_resident_memory_is_a_measure_too():
    before = resident_bytes()
    buffer = bytearray(50_000_000)
    assert resident_bytes() - before > 40_000_000
    del buffer


def test_stopped_it_leaves_things_as_they_were(node):
    before = gc.get_threshold()
    collector = node.collector()
    collector.stop()
    collector.start()
    assert gc.get_threshold() != before
    collector.stop()
    collector.stop()
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


async def test_it_looks_for_as_long_as_it_runs(node, start, monkeypatch):
    monkeypatch.setattr("gateway.collector._LOOK_EVERY_S", 0.001)
    collector = start(node.collector())
    garbage = old_knots(10)
    running = asyncio.create_task(collector.run())
    node.memory = 10_000
    await eventually(lambda: gone(garbage))
    running.cancel()
