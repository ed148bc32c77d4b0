"""What a lane sends ahead, while the batch before is in flight."""

import pytest

from gateway.stream.lanes.ahead import EAGER_MESSAGES
from gateway.stream.lanes.batch import Answer, Kind, Strategy, Verdict
from support.lanes import DUPLICATE, STORED, TIMEOUT, Owner, make, pending, seqs


def busy(waiting, messages=1_000, size=10_000_000):
    """A lane with a batch in flight and so many messages behind it, of one device."""
    lane, owner = make(messages=messages, size=size), Owner()
    for seq in range(1, 5):
        lane.submit([pending(owner, seq)])
    lane.next_batch(0)
    for seq in range(5, 5 + waiting):
        lane.submit([pending(owner, seq)])
    return lane, owner


def test_what_waits_behind_a_batch_is_sent_ahead_without_its_commit():
    lane, owner = busy(EAGER_MESSAGES)
    staged, first, _ = lane.send_ahead(0)
    assert (first, staged.sent, len(staged.items)) == (0, EAGER_MESSAGES - 1, EAGER_MESSAGES)
    assert lane.send_ahead(0) == (None, 0, []), "nothing more waits"
    assert len(lane) == 4 + EAGER_MESSAGES
    for seq in range(5 + EAGER_MESSAGES, 5 + 2 * EAGER_MESSAGES):
        lane.submit([pending(owner, seq)])
    again, first, _ = lane.send_ahead(0)
    assert again is staged
    assert (first, staged.sent) == (EAGER_MESSAGES - 1, 2 * EAGER_MESSAGES - 1)
    lane.submit([pending(owner, 5 + 2 * EAGER_MESSAGES)])
    assert lane.next_batch(0) == (None, []), "one batch in flight"
    assert seqs(lane.resolve(STORED)) == [1, 2, 3, 4]
    committed, _ = lane.next_batch(1)
    assert committed is staged
    assert (committed.kind, committed.started_at) == (Kind.ATOMIC, 1)
    assert seqs(committed.items) == list(range(5, 6 + 2 * EAGER_MESSAGES))


def test_what_a_newer_session_resends_is_not_sent_ahead():
    lane, owner = busy(EAGER_MESSAGES)
    owner.superseded = True
    batch, first, dropped = lane.send_ahead(0)
    assert (batch, first, len(dropped)) == (None, 0, EAGER_MESSAGES)


def test_a_staged_batch_has_the_bounds_of_any_batch():
    lane, _ = busy(2_000)
    staged, _, _ = lane.send_ahead(0)
    assert (staged.sent, len(staged.items)) == (999, 1_000)
    assert not lane.can_send_ahead
    lane, _ = busy(2_000, size=3_000)
    staged, _, _ = lane.send_ahead(0)
    assert len(staged.items) == 300


@pytest.mark.parametrize("strategy", [Strategy.PLAIN, Strategy.FAST])
def test_nothing_is_sent_behind_an_atomic_batch_that_would_be_stored_at_once(strategy):
    lane, _ = busy(1_000)
    lane.strategy = strategy
    assert lane.send_ahead(0) == (None, 0, [])


def test_what_the_server_may_have_lost_is_sent_again_under_another_number():
    for lose in (
        lambda lane: lane.resolve(TIMEOUT),
        lambda lane: (lane.take_back(), lane.resolve(STORED)),
        lambda lane: (lane.resolve(STORED), setattr(lane, "strategy", Strategy.FAST)),
    ):
        lane, _ = busy(EAGER_MESSAGES)
        staged, _, _ = lane.send_ahead(0)
        lose(lane)
        taken = []
        while lane.waiting:
            batch, _ = lane.next_batch(0)
            assert batch.number > staged.number
            assert batch.sent == 0
            taken += seqs(lane.resolve(STORED))
        assert taken[-EAGER_MESSAGES:] == list(range(5, 5 + EAGER_MESSAGES))


def test_a_batch_staged_for_long_is_begun_again():
    lane, _ = busy(EAGER_MESSAGES)
    staged, _, _ = lane.send_ahead(0)
    lane.resolve(STORED)
    batch, _ = lane.next_batch(6)
    assert batch.number > staged.number
    assert (batch.sent, len(batch.items)) == (0, EAGER_MESSAGES)


def test_a_staged_batch_waits_until_the_one_before_is_settled_one_by_one():
    lane, _ = busy(EAGER_MESSAGES)
    staged, _, _ = lane.send_ahead(0)
    lane.resolve(Answer(Verdict.PARTIAL, "partial"))
    for seq in (1, 2, 3, 4):
        batch, _ = lane.next_batch(0)
        assert (batch.kind, seqs(batch.items)) == (Kind.ROUND, [seq])
        lane.resolve_one(0, STORED)
    assert lane.next_batch(0)[0] is staged


def test_staged_messages_wait_behind_those_set_aside():
    lane, _ = busy(EAGER_MESSAGES)
    lane.send_ahead(0)
    lane.resolve(Answer(Verdict.PARTIAL, "partial"))
    lane.next_batch(0)
    lane.resolve_one(0, DUPLICATE)
    assert lane.next_batch(0) == (None, [])
    (question,) = lane.take_questions()
    assert seqs(question.items) == list(range(1, 5 + EAGER_MESSAGES))
    assert not lane.can_send_ahead
    lane.compared(question, same=True)
    assert seqs(lane.next_batch(0)[0].items) == list(range(2, 5 + EAGER_MESSAGES))


def test_nothing_is_sent_ahead_that_must_be_looked_up():
    lane, _ = busy(EAGER_MESSAGES)
    lane.submit([pending(Owner("late"), 1)])
    assert lane.send_ahead(10) == (None, 0, [])
    assert lane.take_questions() == []
