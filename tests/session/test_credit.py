import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.session.credit import CreditWindow


@given(st.integers(1, 50), st.integers(0, 500), st.lists(st.integers(1, 60), max_size=40))
def test_the_limit_is_never_taken_back_and_the_window_is_bounded(initial, extra, steps):
    window = CreditWindow(initial=initial, maximum=initial + extra)
    window.start(10)
    limit = window.limit
    for step in steps:
        window.acknowledge(min(window.acked + step, window.limit))
        assert window.limit >= limit
        assert window.credit <= initial + extra
        assert window.credit >= 1, "an acknowledged device can always send"
        limit = window.limit


def test_a_window_of_acks_doubles_it():
    window = CreditWindow(initial=4, maximum=16)
    window.start(0)
    told = []
    for _ in range(4):
        window.acknowledge(window.limit)
        told.append(window.credit)
    assert told == [8, 16, 16, 16]


@pytest.mark.parametrize(("initial", "maximum"), [(0, 5), (6, 5)])
def test_nonsense_bounds(initial, maximum):
    with pytest.raises(ValueError, match="credit starts at"):
        CreditWindow(initial=initial, maximum=maximum)
