import pytest

from gateway.events.replaying import Pace

SECOND_NS = 1_000_000_000


@pytest.mark.parametrize(("speed", "waits"), [(1.0, [0, 2, 3]), (10.0, [0, 0.2, 0.3])])
def test_events_are_due_as_they_were_stored(speed, waits):
    pace = Pace(speed, lambda: 100.0)
    stored_ns = [5 * SECOND_NS, 7 * SECOND_NS, 8 * SECOND_NS]
    assert [pace.wait_s(each) for each in stored_ns] == pytest.approx(waits)


def test_what_took_too_long_is_made_up_for():
    now = [0.0]
    pace = Pace(1.0, lambda: now[0])
    assert pace.wait_s(0) == 0
    now[0] = 5.0
    assert pace.wait_s(SECOND_NS) == 0
    assert pace.wait_s(6 * SECOND_NS) == pytest.approx(1.0)


def test_without_a_speed_nothing_waits():
    pace = Pace(None, lambda: 0.0)
    assert [pace.wait_s(0), pace.wait_s(10**18)] == [0.0, 0.0]
