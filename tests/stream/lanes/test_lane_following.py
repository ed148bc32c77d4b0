"""A fast or linked batch that is sent behind the one in flight, before that is answered."""

import pytest

from gateway.stream.lanes.ahead import EAGER_MESSAGES
from gateway.stream.lanes.batch import Answer, Kind, Run, Strategy, Verdict
from support.lanes import STORED, TIMEOUT, Owner, make, named, pending, run, seqs

FRAME = 50
FRAMES = EAGER_MESSAGES // FRAME


def busy(strategy=Strategy.LINKED):
    """A lane with a batch of the devices a and b in flight."""
    lane, owners = make(strategy, messages=1_000, size=10_000_000), {}
    for name in "ab":
        owners[name] = Owner(name)
        lane.submit([pending(owners[name], seq) for seq in (1, 2)])
    lane.next_batch(0)
    return lane, owners


def frames_of(lane, *names):
    """A frame of each of so many devices comes in."""
    for name in names:
        lane.submit_run(run(Owner(name), 1, FRAME))


@pytest.mark.parametrize("strategy", [Strategy.LINKED, Strategy.FAST])
def test_what_waits_behind_a_batch_follows_it_whole(strategy):
    lane, _ = busy(strategy)
    frames_of(lane, *"cdefg")
    in_flight = lane.in_flight
    batch, first, dropped = lane.send_ahead(0)
    assert (batch.messages, batch.sent, first, dropped) == (EAGER_MESSAGES, 0, 0, [])
    assert batch.kind.value == strategy.value
    assert (lane.waiting, lane.flying, len(lane)) == (0, 4 + EAGER_MESSAGES, 4 + EAGER_MESSAGES)
    assert lane.in_flight is in_flight
    assert lane.following is batch
    assert named(lane.resolve(STORED)) == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    assert lane.next_batch(0) == (None, []), "it was sent already"
    assert lane.in_flight is batch
    assert lane.following is None
    assert len(lane.resolve(STORED)) == len(batch.items)
    assert len(lane) == 0


def test_frames_stay_whole_in_a_linked_batch_that_follows():
    lane, _ = busy()
    frames_of(lane, *"cdefg")
    batch, _, _ = lane.send_ahead(0)
    assert batch.kind is Kind.LINKED
    assert [type(item) for item in batch.items] == [Run] * FRAMES


def test_one_batch_follows():
    lane, _ = busy()
    frames_of(lane, *"cdefg")
    lane.send_ahead(0)
    frames_of(lane, *"hijkl")
    assert not lane.can_send_ahead
    assert lane.send_ahead(0) == (None, 0, [])


def test_devices_with_messages_in_flight_wait_and_keep_their_places():
    lane, owners = busy()
    frames_of(lane, *"cd")
    lane.submit([pending(owners["a"], seq) for seq in (3, 4)])
    frames_of(lane, *"efg")
    lane.submit([pending(owners["b"], 3), pending(owners["a"], 5)])
    batch, _, _ = lane.send_ahead(0)
    assert batch.devices == {f"t.{name}" for name in "cdefg"}
    assert lane.waiting == 4
    lane.resolve(STORED)
    lane.resolve(STORED)
    after, _ = lane.next_batch(0)
    assert named(after.items) == [("a", 3), ("a", 4), ("a", 5), ("b", 3)]


def test_too_few_messages_of_other_devices_wait_for_the_answer_in_their_places():
    lane, owners = busy()
    frames_of(lane, *"cd")
    lane.submit([pending(owners["a"], seq) for seq in range(3, 3 + EAGER_MESSAGES)])
    frames_of(lane, *"ef")
    assert lane.send_ahead(0) == (None, 0, [])
    assert lane.waiting == 4 * FRAME + EAGER_MESSAGES
    assert lane.following is None
    lane.resolve(STORED)
    after, _ = lane.next_batch(0)
    assert after.messages == 4 * FRAME + EAGER_MESSAGES
    assert seqs(item for item in after.items if item.owner.device == "a") == list(
        range(3, 3 + EAGER_MESSAGES)
    )


def test_the_search_for_other_devices_ends():
    lane, owners = busy()
    lane.submit([pending(owners["a"], seq) for seq in range(3, 35)])
    frames_of(lane, *"cdefg")
    assert lane.send_ahead(0) == (None, 0, []), "32 frames of busy devices were passed over"
    lane, owners = busy()
    lane.submit([pending(owners["a"], seq) for seq in range(3, 34)])
    frames_of(lane, *"cdefg")
    assert lane.send_ahead(0)[0] is not None


def test_a_batch_that_follows_has_the_bounds_of_any_batch():
    lane, _ = busy()
    frames_of(lane, *(f"d{n}" for n in range(30)))
    batch, _, _ = lane.send_ahead(0)
    assert (batch.messages, lane.waiting) == (1_000, 500)


def test_what_a_newer_session_resends_does_not_follow():
    lane, owner = busy()[0], Owner("c")
    lane.submit_run(run(owner, 1, EAGER_MESSAGES))
    owner.superseded = True
    batch, _, dropped = lane.send_ahead(0)
    assert (batch, len(dropped), lane.waiting) == (None, EAGER_MESSAGES, 0)


def test_nothing_follows_that_must_be_looked_up():
    lane, _ = busy()
    frames_of(lane, *"cdefg")
    assert lane.send_ahead(30) == (None, 0, [])
    assert (lane.waiting, lane.take_questions()) == (EAGER_MESSAGES, [])


def test_nothing_follows_while_messages_may_be_repeats():
    lane, owners = busy()
    owners["c"] = Owner("c")
    owners["c"].standing.unsure = True
    lane.distrust(owners["c"].standing)
    frames_of(lane, *"cdefg")
    assert not lane.can_send_ahead


@pytest.mark.parametrize("answer", [TIMEOUT, Answer(Verdict.PARTIAL, "partial")])
def test_what_was_not_stored_is_repeated_when_the_batch_that_follows_has_landed(answer):
    lane, _ = busy()
    frames_of(lane, *"cdefg")
    batch, _, _ = lane.send_ahead(0)
    assert lane.resolve(answer) == []
    frames_of(lane, *"hijkl")
    assert not lane.can_send_ahead, "the repeat goes first"
    assert lane.resolve(STORED) == batch.items
    repeat, _ = lane.next_batch(0)
    assert repeat.kind is Kind.ROUND
    assert named(repeat.items) == [("a", 1), ("b", 1)]
    assert all(item.repeated for item in repeat.items)


def test_both_are_repeated_if_nobody_knows_of_either():
    lane, _ = busy()
    frames_of(lane, *"cdefg")
    lane.send_ahead(0)
    assert (lane.resolve(TIMEOUT), lane.resolve(TIMEOUT)) == ([], [])
    assert lane.failures == 2
    repeat, _ = lane.next_batch(0)
    assert {item.owner.device for item in repeat.items} == set("abcdefg")
