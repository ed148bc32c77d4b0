import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge.connection.side_traffic import SideBudget, SideTraffic

BUDGET = SideBudget(
    frames_per_s=10, frames_burst=20, bytes_per_s=1_000, bytes_burst=4_000, patience_s=30
)


def test_a_burst_is_free_and_the_next_frame_waits_for_half_of_it():
    traffic = SideTraffic(BUDGET)
    assert [traffic.spend(1, 6, 100.0) for _ in range(20)] == [0.0] * 20
    assert traffic.spend(1, 6, 100.0) == pytest.approx(1.1)
    assert traffic.spend(10, 60, 101.1) == 0.0
    assert traffic.spend(1, 6, 101.1) > 0


def test_bytes_are_bounded_too():
    traffic = SideTraffic(BUDGET)
    assert traffic.spend(1, 4_000, 0.0) == 0.0
    assert traffic.spend(1, 1, 0.0) == pytest.approx(2.001)


def test_one_large_frame_is_paid_for_afterwards():
    assert SideTraffic(BUDGET).spend(1, 12_000, 0.0) == pytest.approx(10.0)


def test_a_connection_that_stays_beyond_its_rates_must_close():
    traffic, now = SideTraffic(BUDGET), 0.0
    while (pause_s := traffic.spend(21, 0, now)) < math.inf:
        now += pause_s
        assert now < 40
    assert now > 30


def test_a_connection_that_rests_in_between_may_stay():
    traffic, now = SideTraffic(BUDGET), 0.0
    for _ in range(100):
        pause_s = traffic.spend(30, 0, now)
        assert 0 < pause_s < math.inf
        now += 3.0


def test_a_steady_flow_within_its_rates_is_never_slowed():
    traffic = SideTraffic(BUDGET)
    assert not any(traffic.spend(1, 50, second / 10) for second in range(2_000))


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 9_000)), max_size=60))
def test_no_flood_gets_through_faster_than_its_rates(floods):
    traffic, now, frames, size = SideTraffic(BUDGET), 0.0, 0, 0
    for more_frames, more_bytes in floods:
        pause_s = traffic.spend(more_frames, more_bytes, now)
        frames, size = frames + more_frames, size + more_bytes
        if math.isinf(pause_s):
            return
        now += pause_s
        assert frames <= BUDGET.frames_burst + BUDGET.frames_per_s * now + 1e-6
        assert size <= BUDGET.bytes_burst + BUDGET.bytes_per_s * now + 1e-6


def test_the_reason_names_the_rates():
    assert str(BUDGET) == "10 frames or 1000 bytes a second"
