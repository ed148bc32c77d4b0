import pytest

from gateway.stream.lanes.batch import CUT_SHORT, Answer, Batch, Kind, Verdict


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
