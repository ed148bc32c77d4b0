import pytest

from tidegate.bounds import Excess, OutboxLimits, judge, oldest, overflow

REFUSE = OutboxLimits(messages_max=3, bytes_max=100)
DROP = OutboxLimits(messages_max=3, bytes_max=100, when_full="drop_oldest")


@pytest.mark.parametrize(
    ("sizes", "messages", "size", "verdicts"),
    [
        ([1, 1], 1, 1, [None, None]),
        ([1, 1, 1], 1, 1, [None, None, "3 messages"]),
        ([60, 50, 40], 0, 0, [None, "100 bytes", None]),
        ([1], 3, 0, ["3 messages"]),
        ([100], 0, 0, [None]),
        ([101], 0, 0, ["100 bytes"]),
    ],
)
def test_refusing_judges_each_message(sizes, messages, size, verdicts):
    assert judge(sizes, REFUSE, messages=messages, size=size) == verdicts


def test_dropping_refuses_only_what_fits_no_outbox():
    assert judge([100, 101, 100], DROP, messages=3, size=100) == [None, "100 bytes", None]
    nothing = OutboxLimits(messages_max=0, when_full="drop_oldest")
    assert judge([1], nothing, messages=0, size=0) == ["0 messages"]


@pytest.mark.parametrize(
    ("sizes", "first"),
    [([1, 1, 1], 0), ([1] * 5, 2), ([60, 60], 1), ([60, 50, 50], 1), ([10, 100], 1), ([], 0)],
)
def test_messages_that_do_not_fit_an_empty_outbox_are_counted(sizes, first):
    assert overflow(sizes, DROP) == first


def test_an_excess_grows_by_a_tenth_of_each_bound_that_is_exceeded():
    limits = OutboxLimits(messages_max=20, bytes_max=1_000)
    assert Excess(1, 0).with_a_tenth(limits) == Excess(3, 0)
    assert Excess(-5, 7).with_a_tenth(limits) == Excess(-5, 107)
    assert not Excess(0, -1)


def test_the_oldest_that_make_up_an_excess():
    rows = [(4, 10), (5, 20), (9, 30)]
    assert oldest(rows, Excess(2, 0)) == (5, Excess(0, -30))
    assert oldest(rows, Excess(0, 31)) == (9, Excess(-3, -29))
    assert oldest(rows, Excess(9, 0)) == (9, Excess(6, -60))
    assert oldest(rows, Excess(0, 0)) == (0, Excess(0, 0))
