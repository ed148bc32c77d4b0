import pytest

from gateway.stream.lanes.batch import CUT_SHORT, Answer, Batch, Kind, Verdict, count_of, split_all
from support.lanes import Owner, pending, run, seqs


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({}, "timeout"),
        ({0: Answer(Verdict.STORED)}, "timeout"),
        ({0: Answer(Verdict.STORED), 1: Answer(Verdict.THROTTLED, "limits")}, "limits"),
    ],
)
def test_a_round_is_repeated_for_the_first_reason_that_was_given(answers, reason):
    assert Batch(1, Kind.ROUND, [], 0.0, answers=answers).reason == reason


@pytest.mark.parametrize(
    ("first", "last", "verdict"),
    [
        (7, 9, Verdict.STORED),
        (7, 8, Verdict.PARTIAL),  # one is missing
        (7, 10, Verdict.PARTIAL),  # somebody else's message is between them
        (0, 9, Verdict.PARTIAL),  # the first was not stored now
    ],
)
def test_a_linked_batch_is_stored_if_the_stream_grew_by_its_messages(first, last, verdict):
    batch = Batch(1, Kind.LINKED, [None] * 3, 0.0)
    answer = Answer(Verdict.STORED, stored_at=first) if first else CUT_SHORT
    assert batch.whole(0, answer) is None, "the last message is not answered yet"
    assert batch.whole(2, Answer(Verdict.STORED, stored_at=last)).verdict is verdict


def test_what_goes_wrong_with_its_last_message_goes_wrong_with_a_linked_batch():
    batch = Batch(1, Kind.LINKED, [None] * 3, 0.0)
    batch.whole(0, Answer(Verdict.STORED, stored_at=7))
    limits = Answer(Verdict.AMBIGUOUS, "limits")
    assert batch.whole(2, limits) is limits


def test_a_run_that_is_split_counts_for_as_many_bytes():
    whole = run(Owner(), 5, 7)
    whole.size = 32
    items = whole.split()
    assert ([item.seq for item in items], whole.seq) == ([5, 6, 7], 7)
    assert [item.size for item in items] == [10, 10, 12]
    assert {item.absent_at for item in items} == {whole.absent_at}
    assert [item.envelope for item in items] == [whole.envelope(place) for place in range(3)]


def test_a_batch_counts_the_messages_of_its_runs():
    owner, batch = Owner(), Batch(1, Kind.LINKED, [], 0.0)
    batch.items.append(pending(owner, 1))
    batch.add(run(owner, 2, 6))
    assert (batch.messages, count_of(batch.items)) == (6, 6)
    batch.first_at = 10
    assert batch.whole(5, Answer(Verdict.STORED, stored_at=15)).verdict is Verdict.STORED
    assert batch.whole(5, Answer(Verdict.STORED, stored_at=14)) is CUT_SHORT
    assert seqs(split_all(batch.items)) == [1, 2, 3, 4, 5, 6]
    assert (batch.split(), batch.messages) == (batch.items, 6)
    assert (batch.messages, count_of(batch.items)) == (6, 6), "split once more, it is the same"
