import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.session.credit import CreditPool, CreditWindow


@given(st.integers(1, 50), st.integers(0, 500), st.lists(st.integers(1, 60), max_size=40))
def test_the_limit_is_never_taken_back_and_the_window_is_bounded(initial, extra, steps):
    window = CreditWindow(initial=initial, maximum=initial + extra)
    window.start(10, 10_000)
    limit = window.limit
    for step in steps:
        window.acknowledge(min(window.acked + step, window.limit), 10_000)
        assert window.limit >= limit
        assert window.credit <= initial + extra
        assert window.credit >= 1, "an acknowledged device can always send"
        limit = window.limit


def test_a_window_of_acks_doubles_it():
    window = CreditWindow(initial=4, maximum=16)
    window.start(0, 100)
    told = []
    for _ in range(4):
        window.acknowledge(window.limit, 100)
        told.append(window.credit)
    assert told == [8, 16, 16, 16]


@pytest.mark.parametrize(("initial", "maximum"), [(0, 5), (6, 5)])
def test_bounds_that_cannot_be_used(initial, maximum):
    with pytest.raises(ValueError, match="credit starts at"):
        CreditWindow(initial=initial, maximum=maximum)


def test_a_sinking_ceiling_takes_credit_back_as_acks_come_and_not_before():
    window = CreditWindow(initial=32, maximum=64)
    window.start(0, 64)
    window.acknowledge(10, 4)
    assert window.limit == 32, "what was told stands"
    window.acknowledge(31, 4)
    assert (window.limit, window.credit) == (35, 4)


def test_acks_give_no_credit_in_a_hold_and_the_window_after_it_is_small():
    window = CreditWindow(initial=8, maximum=64)
    window.start(0, 64)
    window.acknowledge(8, 64)
    window.hold()
    limit = window.limit
    window.acknowledge(limit, 64)
    assert window.credit == 0
    window.release(64)
    assert window.credit == 8
    window.acknowledge(window.limit, 64)
    assert window.credit == 16


@given(st.integers(0, 100_000), st.floats(0, 2), st.integers(1, 70_000))
def test_the_outstanding_messages_of_all_sessions_fit_the_budget(sessions, backlog, size):
    pool = CreditPool(maximum=256, budget_bytes=64 * 2**20)
    for _ in range(1_000):
        pool.received(100, 100 * size)
    ceiling = pool.ceiling(sessions, backlog)
    assert 1 <= ceiling <= 256
    assert pool.message_bytes == pytest.approx(size, rel=0.01)
    if ceiling > 1:
        assert ceiling * sessions * pool.message_bytes <= 64 * 2**20 * 1.001


def test_the_ceiling_sinks_with_the_backlog():
    pool = CreditPool(maximum=100, budget_bytes=2**40)
    assert [pool.ceiling(1, share) for share in (0.0, 0.25, 0.5, 0.7, 0.75, 1.0)] == [
        100, 100, 50, 10, 1, 1,
    ]  # fmt: skip


def test_a_chatty_device_is_cut_down_and_a_quiet_one_is_not():
    """Max-min: one ceiling for all, which a device that uses less never reaches."""
    pool = CreditPool(maximum=256, budget_bytes=2**40)
    chatty, quiet = (CreditWindow(initial=2, maximum=256) for _ in range(2))
    chatty.start(0, 256)
    quiet.start(0, 256)
    for _ in range(10):
        chatty.acknowledge(chatty.limit, pool.ceiling(2, 0.0))
    assert chatty.credit == 256
    for _ in range(2):
        chatty.acknowledge(chatty.limit, pool.ceiling(2, 0.72))
        quiet.acknowledge(quiet.acked + 1, pool.ceiling(2, 0.72))
    assert chatty.credit <= 15
    assert quiet.credit >= 2
