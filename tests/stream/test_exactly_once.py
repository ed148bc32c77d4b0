"""Exactly once, in the worlds of `support/exactly_once.py`, and what these worlds can see."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.stream.lanes.batch import Strategy
from gateway.stream.lanes.standing import Resume, Standings
from support.exactly_once import CREDIT, WINDOW_S, JetStream, Node, World


@pytest.fixture(autouse=True, scope="module")
def links_again_at_once():
    """A linked batch that is cut short is followed by linked ones: the model is about those."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.stream.lanes.lane_method._UNLINKED_BATCHES", 0)
        yield


@settings(max_examples=400, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from([Strategy.PLAIN, Strategy.ATOMIC, Strategy.LINKED]),
    st.integers(1, 3),
    st.booleans(),
    st.booleans(),
)
def test_each_message_is_stored_once_and_none_is_settled_before(
    seed, strategy, nodes, says_sent, schemas
):
    nodes = 1 if strategy is Strategy.LINKED else nodes
    world = World(seed, strategy, nodes, says_sent, schemas=schemas)
    for _ in range(150):
        world.step()
        world.check()


def test_the_model_sees_a_message_stored_twice_without_look_ups():
    """Without the rule's look-ups something is stored twice: the model would see it."""

    class Credulous(Standings):
        def of(self, tenant, device, outbox, now):
            standing = super().of(tenant, device, outbox, now)
            standing.learn(0, math.inf)
            return standing

    def broken(seed):
        world = World(seed, Strategy.ATOMIC, 2, says_sent=False)
        for node in world.nodes:
            node.standings = Credulous(WINDOW_S)
        try:
            for _ in range(150):
                world.step()
                world.check()
        except AssertionError as failure:
            return "stored once" in str(failure)
        return False

    assert any(broken(seed) for seed in range(50))


def test_the_model_sees_a_message_in_both_streams_without_look_ups_of_letters(monkeypatch):
    """Without the look-ups of the other stream, a message is stored in both."""

    def broken(seed):
        world = World(seed, Strategy.ATOMIC, 1, says_sent=True, schemas=True)
        try:
            for _ in range(150):
                world.step()
                world.check()
        except AssertionError as failure:
            return "stored once" in str(failure)
        return False

    assert not any(broken(seed) for seed in range(20))
    monkeypatch.setattr("gateway.stream.lanes.outlet.NEVER", 10.0**9)
    assert any(broken(seed) for seed in range(20))


def test_the_model_sees_a_linked_batch_in_which_the_messages_of_devices_are_mixed(monkeypatch):
    """A duplicate there lets a link hold behind a message that is missing."""

    def broken(seed):
        world = World(seed, Strategy.LINKED, 1, says_sent=False)
        try:
            for _ in range(150):
                world.step()
                world.check()
        except AssertionError as failure:
            return "in order" in str(failure)
        return False

    monkeypatch.setattr("gateway.stream.lanes.lane_method._device", lambda _item: "")
    assert any(broken(seed) for seed in range(400)), "the first one is"


def test_devices_gone_for_a_second_cost_no_look_up_on_the_node_that_served_them():
    jetstream = JetStream(random.Random(1))
    node = Node(jetstream, random.Random(1), Strategy.ATOMIC)
    asked = 0
    standings = [node.standings.of("t", f"d{n}", "o", 0.0) for n in range(10_000)]
    for standing in standings:
        standing.found(0, 0.0)
        standing.doubt(Resume(1, 0, None), 0, CREDIT)
    for second in range(1, 60):
        for number, standing in enumerate(standings):
            if (second + number) % 5 == 0 and float(second) > standing.renew_at:
                standing.sent_first(CREDIT + second, float(second))
    for standing in standings:
        # The acks of the last two seconds were lost.
        if standing.resume(Resume(CREDIT + 58, 1_000, None), 60.0) is None:
            asked += 1
    assert asked == 0
