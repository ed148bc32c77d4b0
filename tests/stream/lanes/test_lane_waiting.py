"""What a lane looks up, or compares, before it goes on with a device."""

import pytest

from gateway.stream.lanes.batch import Kind, Strategy
from gateway.stream.lanes.encoding import SEQ_REUSED
from gateway.stream.lanes.standing import NEVER
from support.lanes import DUPLICATE, STORED, TIMEOUT, WINDOW_S, Owner, make, named, pending, seqs


def test_a_duplicate_of_what_this_node_published_itself_is_settled_at_once():
    lane, owner = make(), Owner()
    lane.submit([pending(owner, 1)])
    lane.next_batch(0)
    lane.resolve(TIMEOUT)
    lane.next_batch(1)
    assert seqs(lane.resolve(DUPLICATE)) == [1]
    assert lane.take_questions() == []


@pytest.mark.parametrize("strategy", [Strategy.PLAIN, Strategy.ATOMIC])
def test_a_seq_that_was_given_to_another_message_is_a_dead_letter_in_its_place(strategy):
    lane, owner, other = make(strategy), Owner("a"), Owner("b")
    lane.submit([pending(owner, 1)])
    batch, _ = lane.next_batch(0)
    lane.submit([pending(owner, 2), pending(other, 1)])
    answer = (
        lane.resolve(DUPLICATE) if batch.kind is Kind.SINGLE else lane.resolve_one(0, DUPLICATE)
    )
    assert answer == []
    (question,) = lane.take_questions()
    others, _ = lane.next_batch(0)
    assert named(others.items) == [("b", 1)], "the others go on"
    assert len(lane) == 3
    assert lane.compared(question, same=False) == []
    lane.resolve(STORED)
    letter, _ = lane.next_batch(0)
    assert [(item.seq, item.reject) for item in letter.items] == [(1, (SEQ_REUSED, ""))]
    lane.resolve(TIMEOUT)
    again, _ = lane.next_batch(WINDOW_S)
    assert seqs(again.items) == [1], "no look-up could tell of this letter"
    assert seqs(lane.resolve(DUPLICATE)) == [1], "its payload is in its id: it is the same letter"
    after, _ = lane.next_batch(0)
    assert named(after.items) == [("a", 2)]


def test_a_message_in_doubt_for_long_is_looked_up_before_it_is_repeated():
    lane, owner, other = make(), Owner("a"), Owner("b")
    for seq in range(1, 5):
        lane.submit([pending(owner, seq)])
    lane.next_batch(0)
    lane.resolve(TIMEOUT)
    lane.next_batch(9)
    lane.submit([pending(owner, 5, absent_at=9), pending(other, 1, absent_at=9)])
    lane.resolve(TIMEOUT)
    batch, _ = lane.next_batch(10)
    assert named(batch.items) == [("b", 1)], "the lane goes on with the others"
    (question,) = lane.take_questions()
    assert (question.stored_at, question.device, lane.asking) == (None, "t.a", 1)
    assert (named(question.items), len(lane)) == ([("a", seq) for seq in range(1, 6)], 6)
    assert seqs(lane.found(question, 2, asked_at=11)) == [1, 2]
    assert (lane.asking, lane.failures) == (0, 0)
    assert named(lane.resolve(STORED)) == [("b", 1)]
    repeated, _ = lane.next_batch(12)
    assert (repeated.kind, seqs(repeated.items)) == (Kind.ATOMIC, [3, 4, 5])
    lane.resolve(TIMEOUT)
    again, _ = lane.next_batch(20.9)
    assert seqs(again.items) == [3, 4, 5]
    lane.resolve(TIMEOUT)
    assert lane.next_batch(21) == (None, []), "last known to be absent at 11"
    assert lane.next_batch(30) == (None, []), "asked once"
    assert len(lane.take_questions()) == 1


def test_a_message_that_waited_for_long_is_looked_up_before_it_is_published():
    """Its device may have been elsewhere meanwhile, with the same message."""
    lane, owner = make(), Owner()
    lane.submit([pending(owner, 1)])
    assert lane.next_batch(10) == (None, [])
    (question,) = lane.take_questions()
    assert seqs(lane.found(question, 1, asked_at=10)) == [1]
    lane.submit([pending(owner, 2, absent_at=0.1)])
    assert seqs(lane.next_batch(10)[0].items) == [2]


def test_a_message_that_came_after_the_look_up_is_not_settled_by_it():
    """Another copy of the outbox has come further: seq 2 is another message there."""
    lane, owner = make(), Owner()
    lane.submit([pending(owner, 1)])
    lane.next_batch(10)
    (question,) = lane.take_questions()
    lane.submit([pending(owner, 2, absent_at=11)])
    lane.next_batch(11)
    assert seqs(lane.found(question, 2, asked_at=10.5)) == [1]
    assert seqs(lane.next_batch(11)[0].items) == [2]


def test_a_look_up_from_before_a_message_came_does_not_let_it_be_published():
    """Meanwhile another node may have stored it in the other stream."""
    lane, owner = make(), Owner()
    lane.submit([pending(owner, 1)])
    lane.next_batch(10)
    (question,) = lane.take_questions()
    late = pending(owner, 2, absent_at=NEVER)
    late.ask_after = 12
    lane.submit([late])
    lane.next_batch(12)
    assert lane.found(question, 0, asked_at=11) == []
    assert seqs(lane.next_batch(12)[0].items) == [1]
    lane.resolve(STORED)
    assert lane.next_batch(12) == (None, [])
    (question,) = lane.take_questions()
    lane.found(question, 1, asked_at=13)
    assert seqs(lane.next_batch(13)[0].items) == [2]


def test_two_outboxes_of_a_device_stay_in_order_and_each_is_looked_up():
    lane, old, new = make(), Owner("a", "old"), Owner("a", "new")
    lane.submit([pending(old, 8), pending(new, 1)])
    lane.next_batch(10)
    (question,) = lane.take_questions()
    assert named(question.items) == [("a", 8), ("a", 1)]
    assert seqs(lane.found(question, 8, asked_at=10)) == [8]
    assert lane.next_batch(11) == (None, [])
    (question,) = lane.take_questions()
    assert question.items[0].standing.key == ("t", "a", "new")


def test_a_batch_ends_before_a_message_that_must_wait_for_one_of_its_own_device():
    lane, owner = make(), Owner()
    lane.submit([pending(owner, 1, absent_at=5), pending(owner, 2, absent_at=0)])
    batch, _ = lane.next_batch(10)
    assert seqs(batch.items) == [1]
    lane.resolve(TIMEOUT)
    batch, _ = lane.next_batch(11)
    assert seqs(batch.items) == [1]
    lane.resolve(STORED)
    assert lane.next_batch(12) == (None, [])
    assert [seqs(each.items) for each in lane.take_questions()] == [[2]]


def test_messages_aside_are_dropped_when_a_newer_session_resends_them():
    lane, owner = make(), Owner()
    lane.submit([pending(owner, 1), pending(owner, 2)])
    lane.next_batch(10)
    (question,) = lane.take_questions()
    owner.superseded = True
    assert seqs(lane.found(question, 1, asked_at=10)) == [1]
    batch, dropped = lane.next_batch(10)
    assert (batch, seqs(dropped), len(lane)) == (None, [2], 0)


def test_a_letter_found_by_a_look_up_is_reported_only_if_this_node_published_it():
    """It may be in either stream: the message was sent before, perhaps under another schema."""
    for ours in (False, True):
        lane, owner = make(), Owner()
        letter = pending(owner, 1, stream="DEADLETTERS")
        letter.reject = ("schema", "")
        letter.repeated = ours
        lane.submit([letter])
        lane.next_batch(10)
        (question,) = lane.take_questions()
        assert lane.found(question, 1, asked_at=10) == [letter]
        assert letter.reject == (("schema", "") if ours else None)


def test_a_message_alone_that_a_newer_session_resends_is_dropped():
    lane, owner = make(), Owner()
    lane.submit([pending(owner, 1)])
    owner.superseded = True
    batch, dropped = lane.next_batch(0)
    assert (batch, seqs(dropped)) == (None, [1])


def test_a_message_alone_goes_behind_those_that_are_repeated():
    lane, owner = make(), Owner()
    lane.submit([pending(owner, 1)])
    lane.next_batch(0)
    lane.resolve(TIMEOUT)
    lane.submit([pending(owner, 2)])
    assert seqs(lane.next_batch(0)[0].items) == [1]
    assert seqs(lane.resolve(STORED)) == [1]
    assert seqs(lane.next_batch(0)[0].items) == [2]


def test_a_message_alone_waits_for_those_of_its_device_that_wait_aside():
    lane, owner = make(), Owner()
    lane.submit([pending(owner, 1)])
    assert lane.next_batch(10) == (None, []), "last known to be absent at 0"
    lane.submit([pending(owner, 2, absent_at=10)])
    assert lane.next_batch(10) == (None, [])
    (question,) = lane.take_questions()
    assert seqs(lane.found(question, 1, 10)) == [1]
    assert seqs(lane.next_batch(10)[0].items) == [2]
