"""Revocations are facts: nodes that exchange them in any order end with the same facts."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission.credential import Identity
from gateway.admission.revocation import KEPT_S, Revocation, RevocationList

ONE = Identity("veh-1", "t", "g", False, "j-1", 1e9)
TWO = Identity("veh-2", "t", "g", False, "j-2", 1e9)


class Clock:
    def __init__(self, now=1_000.0):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def revoked(clock):
    return RevocationList(clock)


def test_a_jti_and_a_device_are_revoked_until_their_time(revoked, clock):
    assert not revoked.revoked(ONE)
    revoked.state(Revocation(1_100.0, jti="j-1"))
    revoked.state(Revocation(1_050.0, tenant="t", device="veh-2"))
    clock.now = 1_049.0
    assert revoked.revoked(ONE)
    assert revoked.revoked(TWO)
    clock.now = 1_050.0
    assert not revoked.revoked(TWO)
    assert [fact.jti for fact in revoked.in_force()] == ["j-1"]
    clock.now = 1_100.0
    assert not revoked.revoked(ONE)


def test_a_clock_that_was_ahead_for_a_while_loses_nothing(revoked, clock):
    revoked.state(Revocation(2_000.0, jti="j-1"))
    clock.now += 3_600
    assert not revoked.revoked(ONE)
    assert len(revoked.facts()) == 1
    clock.now -= 3_600
    assert revoked.revoked(ONE)
    clock.now = 2_000.0 + KEPT_S
    assert revoked.facts() == []
    assert len(revoked) == 0


def test_what_is_lifted_stays_lifted_though_the_revocation_comes_again(revoked, clock):
    old = revoked.state(Revocation(5_000.0, jti="j-1"))
    lifted = revoked.state(Revocation(0.0, jti="j-1", lifted=True))
    assert lifted.at > old.at, "stated in the same moment, and yet later"
    assert lifted.until == 5_000.0, "kept for as long as anybody can hold what it undoes"
    assert not revoked.revoked(ONE)
    assert not revoked.add(old)
    assert not revoked.revoked(ONE)
    assert revoked.in_force() == []
    assert revoked.add(replace(old, at=lifted.at + 1))
    assert revoked.revoked(ONE)
    clock.now = 1_001.0


def test_lifting_what_is_not_known_here_is_kept_for_those_who_know_it(revoked, clock):
    lifted = revoked.state(Revocation(0.0, tenant="t", device="veh-1", lifted=True))
    clock.now += KEPT_S * 7
    assert revoked.facts() == [lifted]


def test_a_node_whose_clock_is_behind_can_still_undo(clock):
    ahead, behind = RevocationList(clock), RevocationList(lambda: clock.now - 3_600)
    fact = ahead.state(Revocation(1e9, jti="j-1"))
    behind.add(fact)
    undone = behind.state(Revocation(0.0, jti="j-1", lifted=True))
    assert ahead.add(undone)
    assert not ahead.revoked(ONE)


def test_a_fact_that_comes_again_is_not_news(revoked):
    fact = Revocation(2_000.0, jti="j-1", at=1_000.0)
    assert [revoked.add(fact) for _ in range(3)] == [True, False, False]


def test_of_two_facts_of_one_moment_the_one_that_revokes_wins():
    here, there = (RevocationList(Clock()) for _ in range(2))
    revoke = Revocation(2_000.0, jti="j-1", at=900.0)
    lift = Revocation(2_000.0, jti="j-1", at=900.0, lifted=True)
    for facts, order in ((here, (revoke, lift)), (there, (lift, revoke))):
        for fact in order:
            facts.add(fact)
        assert facts.revoked(ONE)


FACTS = st.lists(
    st.builds(
        Revocation,
        until=st.floats(0, 10_000),
        jti=st.sampled_from(["a", "b", "c"]),
        at=st.integers(0, 20).map(float),
        lifted=st.booleans(),
    ),
    max_size=30,
    unique_by=lambda fact: (fact.jti, fact.at, fact.lifted),
)


@pytest.mark.figures
@given(FACTS, st.integers(0, 1_000))
def test_nodes_that_hear_the_same_facts_in_any_order_agree(facts, seed):
    rng, nodes = random.Random(seed), []
    for _ in range(3):
        heard = facts + rng.sample(facts, len(facts) // 2)
        rng.shuffle(heard)
        node = RevocationList(Clock(0.0))
        for fact in heard:
            node.add(fact)
        nodes.append(sorted(node.facts(), key=repr))
    assert nodes[0] == nodes[1] == nodes[2]


@pytest.mark.parametrize(
    "wrong", [{}, {"jti": "a", "device": "b"}, {"device": "b"}, {"tenant": "t"}]
)
def test_a_revocation_names_one_thing(wrong):
    with pytest.raises(ValueError, match="revocation"):
        Revocation(1.0, **wrong)


@pytest.mark.parametrize("times", [{"until": float("inf")}, {"until": 1.0, "at": float("nan")}])
def test_the_times_of_a_fact_are_finite(times):
    with pytest.raises(ValueError, match="finite"):
        Revocation(jti="a", **times)
