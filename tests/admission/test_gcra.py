import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission.gcra import Gcra, KeyedLimiter
from support.storm import worst_excess

GAPS = st.lists(st.floats(0, 0.5), max_size=200)


@given(GAPS, st.floats(1, 100), st.integers(1, 20))
def test_an_event_is_counted_if_it_conforms_and_changes_nothing_if_not(gaps, rate, burst):
    meter, other = (Gcra(rate_per_s=rate, burst=burst, now=0.0) for _ in range(2))
    now = 0.0
    for gap in gaps:
        now += gap
        conforms = other.conforms(now)
        if conforms:
            other.take(now)
        assert meter.take_if_conforms(now, 1.0) is conforms
        assert meter.ready_at() == other.ready_at()


def test_the_burst_follows_the_rate_and_what_is_set():
    meter = Gcra(rate_per_s=10, burst=10, now=0.0)
    meter.set_rate(100, 0.0)
    meter.take(1_000.0)
    assert meter.ready_at(0.0) == pytest.approx(1_000.0 - 9 / 100)
    meter.set_burst(5)
    meter.take(2_000.0)
    assert meter.ready_at(0.0) == pytest.approx(2_000.0 - 4 / 100)


@given(GAPS, st.floats(1, 100), st.integers(1, 20))
def test_no_window_holds_more_than_rate_and_burst(gaps, rate, burst):
    meter, now, taken = Gcra(rate_per_s=rate, burst=burst, now=0.0), 0.0, []
    for gap in gaps:
        now += gap
        if meter.conforms(now):
            meter.take(now)
            taken.append(now)
    assert worst_excess(taken, rate, burst) <= 1e-6


def test_it_gives_the_whole_rate_and_not_only_the_burst():
    """Centrifugo's limiter gives 100 in the first second and then 1 a second."""
    meter, taken = Gcra(rate_per_s=100, burst=100, now=0.0), 0
    for step in range(60_000):
        if meter.conforms(step / 1000):
            meter.take(step / 1000)
            taken += 1
    assert taken == pytest.approx(100 + 6_000, abs=2)


def test_a_change_of_rate_keeps_the_credit():
    meter = Gcra(rate_per_s=10, burst=10, now=0.0)
    for _ in range(4):
        meter.take(0.0)
    meter.set_rate(100, 0.0)
    assert meter.credit(0.0) == pytest.approx(6)
    assert meter.credit(0.01) == pytest.approx(7)
    assert meter.credit(10.0) == 10


def test_credit_beyond_a_smaller_burst_is_lost():
    meter = Gcra(rate_per_s=10, burst=10, now=0.0)
    meter.set_burst(3)
    assert meter.credit(0.0) == 3


def test_a_penalty_never_grows_by_knocking():
    limiter = KeyedLimiter(rate_per_s=1, burst=3, keys_max=10)
    assert [limiter.wait_s("veh", 100.0) for _ in range(3)] == [0, 0, 0]
    waits = [limiter.wait_s("veh", 100.0 + n / 1000) for n in range(900)]
    ends = {round(100.0 + n / 1000 + wait, 6) for n, wait in enumerate(waits)}
    assert ends == {101.0}
    assert limiter.wait_s("veh", 101.0) == 0
    assert limiter.wait_s("other", 101.0) == 0


@pytest.mark.parametrize(("rate", "burst"), [(0.25, 2), (4.0, 10), (1_024.0, 20)])
@pytest.mark.parametrize("begins", [0.0, 3.0, 1e9])
def test_a_key_has_its_burst_and_then_its_rate_from_any_time_on(rate, burst, begins):
    """The monotonic clock of a machine that has just booted is near zero."""
    limiter = KeyedLimiter(rate_per_s=rate, burst=burst, keys_max=10)
    assert [limiter.wait_s("veh", begins) for _ in range(burst)] == [0.0] * burst
    assert limiter.wait_s("veh", begins) == pytest.approx(1 / rate, rel=1e-6)
    taken = sum(
        limiter.wait_s("veh", begins + step / (20 * rate)) == 0.0 for step in range(1, 20 * 100)
    )
    assert taken == pytest.approx(100, abs=1)
    later = begins + 1_000 * burst / rate
    assert [limiter.wait_s("veh", later) > 0 for _ in range(burst + 1)] == [False] * burst + [True]


def test_keys_are_bounded():
    limiter = KeyedLimiter(rate_per_s=1, burst=1, keys_max=100)
    for n in range(10_000):
        limiter.wait_s(n, 1.0)
    assert len(limiter) == 100
