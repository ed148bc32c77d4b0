"""Which nodes are missed, and which sessions of theirs are ended; without NATS and Redis."""

import asyncio
import random
from types import SimpleNamespace

import pytest

from gateway.cluster.claims import DONE, MINE, TAKEN
from gateway.cluster.errors import RedisUnavailable
from gateway.node.cluster.roll import Alive
from gateway.node.presence import dead_nodes
from gateway.node.presence.dead_nodes import DeadNodes
from gateway.session.presence import Fact, Truth
from support.waiting import eventually

SILENCE_S = 5.0


def alive(*names, at=100.0):
    return Alive(frozenset(names), at, SILENCE_S)


def online(device, node, time):
    return Fact("default", device, True, f"s-{device}", 7, "connected", node, time)


class Fleet:
    """A membership whose answers are set."""

    def __init__(self):
        self.alive = None
        self.answers = {}
        self.claimed, self.done = [], []
        self.failures = 0

    async def claim(self, work, *, lease_s):
        if self.failures:
            self.failures -= 1
            raise RedisUnavailable("unreachable", "away")
        self.claimed.append(set(work))
        return {name: self.answers.get(name, DONE if name == "*" else MINE) for name in work}

    async def claim_done(self, names):
        self.done += names


class Writer:
    def __init__(self):
        self.facts = []

    def add(self, fact, *, prompt=False):
        assert prompt
        self.facts.append(fact)

    async def stored_so_far(self):
        pass


class Lives:
    names = frozenset()
    forgotten = frozenset()

    def ended(self, names):
        self.names, self.forgotten = frozenset(), names


class Rig:
    def __init__(self, monkeypatch, facts=()):
        self.fleet, self.writer, self.lives = Fleet(), Writer(), Lives()
        self.facts = list(facts)
        self.counted = 0
        monkeypatch.setattr(dead_nodes, "_LOOK_S", 0.001)
        monkeypatch.setattr(dead_nodes, "_RETRY_S", 0.001)
        monkeypatch.setattr(dead_nodes, "truth_now", self.truth_now)
        self.dead = DeadNodes(
            SimpleNamespace(),
            self.writer,
            self.fleet,
            self.lives,
            node="me",
            ready=self.ready,
            on_ended=self.count,
            clock=lambda: 100.0,
            rng=random.Random(1),
        )

    async def ready(self):
        pass

    async def truth_now(self, _link):
        truth = Truth()
        for fact in self.facts:
            truth.take(fact)
        return truth

    def count(self, sessions):
        self.counted += sessions

    async def run_until(self, condition):
        ((_name, work),) = self.dead.work()
        running = asyncio.create_task(work)
        try:
            await eventually(condition)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    @property
    def ended(self):
        return [(fact.device, fact.online, fact.cause, fact.fence) for fact in self.writer.facts]


async def test_the_sessions_of_a_node_that_is_missing_are_ended_unless_they_are_fresh(monkeypatch):
    facts = [online("old", "gone", 1.0), online("fresh", "gone", 99.0), online("other", "me", 1.0)]
    rig = Rig(monkeypatch, facts)
    rig.dead.look(alive("me", "gone"))
    rig.fleet.alive = alive("me")
    await rig.run_until(lambda: rig.fleet.done)
    assert rig.ended == [("old", False, "node_lost", 7)]
    assert rig.counted == 1


async def test_a_node_that_is_back_is_left_alone(monkeypatch):
    rig = Rig(monkeypatch, [online("old", "gone", 1.0)])
    rig.dead.look(alive("me", "gone"))
    rig.dead.look(alive("me"))
    rig.fleet.alive = alive("me", "gone")
    await rig.run_until(lambda: rig.fleet.claimed)
    assert rig.ended == []


@pytest.mark.parametrize(("answer", "again"), [(TAKEN, True), (DONE, False)])
async def test_what_another_node_does_is_left_to_it_and_taken_over_if_it_fails(
    monkeypatch, answer, again
):
    rig = Rig(monkeypatch, [online("old", "gone", 1.0)])
    rig.fleet.answers["gone"] = answer
    rig.dead.look(alive("me", "gone"))
    rig.fleet.alive = alive("me")
    asked = {"gone"}
    await rig.run_until(lambda: rig.fleet.claimed.count(asked) >= (2 if again else 1))
    assert rig.ended == []
    rig.fleet.answers.clear()
    if again:
        await rig.run_until(lambda: rig.fleet.done)
        assert len(rig.ended) == 1


async def test_a_redis_that_goes_away_in_between_is_waited_for(monkeypatch):
    rig = Rig(monkeypatch, [online("old", "gone", 1.0)])
    rig.fleet.failures = 3
    rig.dead.look(alive("me", "gone"))
    rig.fleet.alive = alive("me")
    await rig.run_until(lambda: rig.fleet.done)
    assert len(rig.ended) == 1


async def test_a_node_that_nobody_knows_is_found_by_what_is_stored(monkeypatch):
    rig = Rig(monkeypatch, [online("old", "stranger", 1.0), online("here", "me", 1.0)])
    rig.fleet.answers["*"] = MINE
    rig.fleet.alive = alive("me")
    await rig.run_until(lambda: rig.fleet.done)
    assert rig.ended == [("old", False, "node_lost", 7)]


async def test_a_node_ends_what_its_earlier_lives_left_online_without_a_fleet(monkeypatch):
    rig = Rig(monkeypatch, [online("old", "past", 1.0), online("else", "stranger", 1.0)])
    rig.lives.names = frozenset({"past"})
    await rig.run_until(lambda: rig.lives.forgotten)
    assert rig.ended == [("old", False, "node_lost", 7)]
    assert rig.lives.forgotten == {"past"}
