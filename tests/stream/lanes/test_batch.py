import pytest

from gateway.stream.lanes.batch import Answer, Batch, Kind, Verdict


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
