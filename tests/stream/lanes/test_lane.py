"""Batches of a lane: what goes together, in which order, and what becomes of it."""

import pytest

from gateway.stream.lanes.batch import CUT_SHORT, Answer, Kind, Strategy, Verdict
from support.lanes import DUPLICATE, STORED, TIMEOUT, Owner, make, named, pending, run, seqs


def test_a_batch_is_what_arrived_while_the_last_was_in_flight():
    lane, owner = make(), Owner()
    lane.submit([pending(owner, 1)])
    first, _ = lane.next_batch(0)
    assert (first.kind, seqs(first.items)) == (Kind.SINGLE, [1])
    for seq in (2, 3, 4):
        lane.submit([pending(owner, seq)])
    assert lane.next_batch(0) == (None, []), "one batch in flight"
    assert seqs(lane.resolve(STORED)) == [1]
    second, _ = lane.next_batch(0)
    assert (second.kind, seqs(second.items)) == (Kind.ATOMIC, [2, 3, 4])


@pytest.mark.parametrize(
    ("devices", "kind"), [(2, Kind.ROUND), (15, Kind.ROUND), (16, Kind.ATOMIC)]
)
def test_a_few_messages_of_different_devices_are_cheaper_one_by_one(devices, kind):
    lane = make()
    for number in range(devices):
        lane.submit([pending(Owner(f"d{number}"), 1)])
    batch, _ = lane.next_batch(0)
    assert (batch.kind, len(batch.items)) == (kind, devices)


def test_batches_are_bounded_in_messages_and_bytes_and_hold_one_stream():
    lane, owner = make(messages=3, size=25), Owner()
    for seq in range(1, 5):
        lane.submit([pending(owner, seq)])
    lane.submit([pending(owner, 5, stream="DEADLETTERS")])
    lane.submit([pending(owner, 6, size=1_000)])
    taken = []
    while lane.waiting:
        batch, _ = lane.next_batch(0)
        taken.append(seqs(batch.items))
        lane.resolve(STORED)
    assert taken == [[1, 2], [3, 4], [5], [6]]


def test_an_ambiguous_batch_is_repeated_whole_before_anything_newer():
    lane, owner = make(), Owner()
    for seq in (1, 2):
        lane.submit([pending(owner, seq)])
    lane.next_batch(0)
    lane.submit([pending(owner, 3)])
    assert lane.resolve(TIMEOUT) == []
    assert lane.failures == 1
    again, _ = lane.next_batch(0)
    assert seqs(again.items) == [1, 2]
    assert seqs(lane.resolve(STORED)) == [1, 2]
    assert lane.failures == 0


def test_duplicates_in_a_batch_are_settled_one_by_one_in_order():
    lane, a, b = make(), Owner("a"), Owner("b")
    for owner, seq in ((a, 1), (b, 1), (a, 2)):
        lane.submit([pending(owner, seq)])
    lane.next_batch(0)
    lane.resolve(Answer(Verdict.PARTIAL, "partial"))
    round_one, _ = lane.next_batch(0)
    assert round_one.kind is Kind.ROUND
    assert named(round_one.items) == [("a", 1), ("b", 1)]
    assert lane.resolve_one(0, DUPLICATE) is None
    assert named(lane.resolve_one(1, STORED)) == [("b", 1)]
    assert lane.next_batch(0) == (None, []), "what the device sent later waits"
    (question,) = lane.take_questions()
    assert (question.stored_at, named(question.items)) == (7, [("a", 1), ("a", 2)])
    assert named(lane.compared(question, same=True)) == [("a", 1)]
    round_two, _ = lane.next_batch(0)
    assert named(round_two.items) == [("a", 2)]


def test_a_message_of_a_round_without_an_answer_may_have_been_stored():
    """When it is repeated, a duplicate is this message, and no other needs to be looked for."""
    lane, a, b = make(), Owner("a"), Owner("b")
    for owner in (a, b):
        lane.submit([pending(owner, 1)])
    lane.next_batch(0)
    lane.resolve(Answer(Verdict.PARTIAL, "partial"))
    lane.next_batch(0)
    lane.resolve_one(0, STORED)
    assert named(lane.finish_round(TIMEOUT)) == [("a", 1)]
    again, _ = lane.next_batch(0)
    assert named(again.items) == [("b", 1)]
    assert named(lane.resolve(DUPLICATE)) == [("b", 1)]
    assert lane.take_questions() == []


def test_a_message_that_can_never_be_stored_becomes_its_dead_letter():
    lane, owner = make(), Owner()
    lane.submit([pending(owner, 1)])
    lane.submit([pending(owner, 2)])
    lane.next_batch(0)
    assert lane.resolve(Answer(Verdict.REFUSED, "message_size")) == []
    batch, _ = lane.next_batch(0)
    assert batch.kind is Kind.ROUND
    lane.resolve_one(0, Answer(Verdict.REFUSED, "message_size"))
    dead, _ = lane.next_batch(0)
    assert dead.items[0].envelope.stream == "DEADLETTERS"
    assert dead.items[0].reject == ("message_size", "")
    assert seqs(lane.resolve_one(0, STORED)) == [1]


def test_a_single_message_that_can_never_be_stored_becomes_its_dead_letter():
    lane = make()
    lane.submit([pending(Owner(), 1)])
    lane.next_batch(0)
    assert lane.resolve(Answer(Verdict.REFUSED, "header_size")) == []
    letter, _ = lane.next_batch(0)
    assert [(item.seq, item.reject) for item in letter.items] == [(1, ("header_size", ""))]


@pytest.mark.parametrize("strategy", Strategy)
def test_the_queue_drops_what_a_newer_session_resends(strategy):
    lane, old, other = make(strategy), Owner("a"), Owner("b")
    lane.submit([pending(old, 1)])
    lane.next_batch(0)
    for seq in (2, 3):
        lane.submit([pending(old, seq)])
    lane.submit([pending(other, 1)])
    old.superseded = True
    lane.resolve(STORED) if lane.in_flight.kind is not Kind.ROUND else lane.resolve_one(0, STORED)
    batch, dropped = lane.next_batch(0)
    assert seqs(dropped) == [2, 3]
    assert named(batch.items) == [("b", 1)]


def test_a_repeated_round_drops_what_a_newer_session_resends():
    lane, old, other = make(Strategy.PLAIN), Owner("a"), Owner("b")
    lane.submit([pending(old, 1), pending(other, 1)])
    lane.next_batch(0)
    lane.finish_round(TIMEOUT)
    old.superseded = True
    batch, dropped = lane.next_batch(0)
    assert (named(dropped), named(batch.items)) == ([("a", 1)], [("b", 1)])


def test_a_fast_batch_is_smaller_because_its_answer_may_be_lost():
    lane, owner = make(Strategy.FAST, messages=4_000, size=10_000_000), Owner()
    lane.submit(pending(owner, seq) for seq in range(1, 3_001))
    batch, _ = lane.next_batch(0)
    assert (batch.kind, len(batch.items)) == (Kind.FAST, 1_000)


def test_the_size_of_batches_is_learned_from_a_server_that_takes_less():
    lane, owner = make(messages=1_000), Owner()
    for seq in range(1, 101):
        lane.submit([pending(owner, seq)])
    lane.next_batch(0)
    assert lane.resolve(Answer(Verdict.TOO_LARGE, "batch_size", messages_max=40)) == []
    assert lane.failures == 0
    taken = []
    while lane.waiting:
        batch, _ = lane.next_batch(0)
        assert batch.kind is Kind.ATOMIC
        taken.append(len(batch.items))
        lane.resolve(STORED)
    assert taken == [40, 40, 20]


def test_fast_ingest_which_hides_duplicates_is_not_used_where_there_may_be_some():
    lane, sure, unsure = make(Strategy.FAST), Owner("a"), Owner("b")
    unsure.standing.unsure = True
    kinds = []
    for owner in (sure, unsure, sure, unsure):
        if owner.standing.unsure:
            lane.distrust(owner.standing)
        lane.submit(pending(owner, seq) for seq in (1, 2))
        kinds.append(lane.next_batch(0)[0].kind)
        lane.resolve(STORED)
        unsure.standing.unsure = len(kinds) < 3
    assert kinds == [Kind.FAST, Kind.ATOMIC, Kind.FAST, Kind.FAST]


def test_a_linked_batch_that_was_cut_short_is_settled_one_by_one_and_others_use_no_links():
    lane, owner = make(Strategy.LINKED), Owner()
    lane.submit(pending(owner, seq) for seq in (1, 2))
    assert lane.next_batch(0)[0].kind is Kind.LINKED
    assert lane.resolve(CUT_SHORT) == []
    for seq in (1, 2):
        batch, _ = lane.next_batch(0)
        assert (batch.kind, seqs(batch.items)) == (Kind.ROUND, [seq])
        assert seqs(lane.resolve_one(0, DUPLICATE)) == [seq], "this node published it before"
    kinds = []
    for first in range(3, 2_200, 2):
        lane.submit(pending(owner, seq) for seq in (first, first + 1))
        kinds.append(lane.next_batch(0)[0].kind)
        lane.resolve(STORED)
    assert kinds == [Kind.FAST] * 1_000 + [Kind.LINKED] * (len(kinds) - 1_000)


def test_failures_in_a_row_are_counted_until_a_success():
    lane = make(Strategy.PLAIN)
    lane.submit(pending(Owner(name), 1) for name in "ab")
    for expected in (1, 2, 3):
        lane.next_batch(0)
        lane.finish_round(TIMEOUT)
        assert lane.failures == expected
    lane.next_batch(0)
    lane.resolve_one(0, STORED)
    lane.finish_round(TIMEOUT)
    assert lane.failures == 0, "one of two was settled"


def test_a_run_goes_into_a_linked_batch_whole_and_is_settled_whole():
    lane, owner, other = make(Strategy.LINKED), Owner("b"), Owner("a")
    whole = run(owner, 1, 5)
    lane.submit_run(whole)
    lane.submit([pending(other, 1)])
    assert (len(lane), lane.waiting) == (6, 6)
    batch, _ = lane.next_batch(0)
    assert (batch.kind, batch.items[1], batch.messages) == (Kind.LINKED, whole, 6)
    assert (len(lane), lane.waiting) == (6, 0)
    assert named(lane.resolve(STORED)) == [("a", 1), *[("b", seq) for seq in range(1, 6)]]
    assert (len(lane), lane.quiet) == (0, False)


@pytest.mark.parametrize("strategy", [Strategy.FAST, Strategy.ATOMIC, Strategy.PLAIN])
def test_a_run_is_split_in_a_lane_that_links_no_more(strategy):
    lane, owner = make(Strategy.LINKED), Owner()
    lane.submit_run(run(owner, 1, 5))
    lane.strategy = strategy
    settled = []
    while lane.waiting:
        batch, _ = lane.next_batch(0)
        assert batch.messages == len(batch.items)
        if batch.answered_one_by_one:
            settled += seqs(lane.resolve_one(0, STORED))
        else:
            settled += seqs(lane.resolve(STORED))
    assert settled == [1, 2, 3, 4, 5]


def test_a_run_whose_batch_is_repeated_is_split():
    lane, owner = make(Strategy.LINKED), Owner()
    lane.submit_run(run(owner, 1, 3))
    lane.next_batch(0)
    lane.resolve(TIMEOUT)
    assert (len(lane), lane.waiting) == (3, 3)
    first, _ = lane.next_batch(0)
    assert (first.kind, seqs(first.items)) == (Kind.ROUND, [1])
    assert first.items[0].repeated


def test_a_run_that_does_not_fit_begins_the_next_batch():
    lane, owner = make(Strategy.LINKED, messages=10), Owner()
    for first in (1, 7):
        lane.submit_run(run(owner, first, first + 5))
    assert seqs(lane.next_batch(0)[0].items) == [1, 2, 3, 4, 5, 6]
    lane.resolve(STORED)
    assert seqs(lane.next_batch(0)[0].items) == [7, 8, 9, 10, 11, 12]
    lane.resolve(STORED)
    assert len(lane) == 0


@pytest.mark.parametrize("bounds", [{"messages": 4}, {"size": 40}])
def test_a_run_that_is_larger_than_a_batch_is_split(bounds):
    lane, owner = make(Strategy.LINKED, **bounds), Owner()
    lane.submit_run(run(owner, 1, 6))
    assert seqs(lane.next_batch(0)[0].items) == [1, 2, 3, 4]
    lane.resolve(STORED)
    assert seqs(lane.next_batch(0)[0].items) == [5, 6]


def test_a_run_is_in_no_batch_of_dead_letters():
    lane, owner = make(Strategy.LINKED), Owner()
    lane.submit([pending(owner, 1, stream="DEADLETTERS")])
    lane.submit_run(run(owner, 2, 3))
    assert seqs(lane.next_batch(0)[0].items) == [1]
    lane.resolve(STORED)
    assert seqs(lane.next_batch(0)[0].items) == [2, 3]


def test_a_run_that_a_newer_session_resends_is_dropped():
    lane, owner, other = make(Strategy.LINKED), Owner("a"), Owner("b")
    lane.submit_run(run(owner, 1, 3))
    lane.submit_run(run(other, 1, 2))
    owner.superseded = True
    batch, dropped = lane.next_batch(0)
    assert (named(batch.items), seqs(dropped)) == ([("b", 1), ("b", 2)], [1, 2, 3])
    lane.resolve(STORED)
    assert len(lane) == 0


def test_a_run_that_waited_for_long_is_looked_up_before_it_is_published():
    lane, owner = make(Strategy.LINKED), Owner()
    lane.submit_run(run(owner, 1, 3))
    assert lane.next_batch(10) == (None, [])
    (question,) = lane.take_questions()
    lane.submit_run(run(owner, 4, 5, absent_at=10.0))
    assert lane.next_batch(10) == (None, []), "what comes after it waits too"
    assert seqs(lane.found(question, 2, asked_at=10)) == [1, 2]
    assert seqs(lane.next_batch(10)[0].items) == [3, 4, 5]
