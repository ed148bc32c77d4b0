"""The calendar of one node: slots at R, priority slots within their share, a horizon."""

import pytest

from gateway.admission.calendar import CalendarSettings, SlotCalendar
from gateway.admission.gcra import Gcra

NOW = 100.0


def calendar(*, burst=1.0, rate=10.0, **settings):
    return SlotCalendar(
        CalendarSettings(burst=burst, headroom=0.0, **settings), rate_per_s=rate, now=NOW
    )


def slots(of, count, *, priority=False, cost=1.0):
    return [of.reserve(NOW, cost, priority=priority) for _ in range(count)]


def test_slots_are_spaced_by_the_rate_after_the_burst():
    assert slots(calendar(burst=2.0), 5) == pytest.approx([99.8, 99.9, 100.0, 100.1, 100.2])
    assert slots(calendar(), 3, cost=0.5) == pytest.approx([99.9, 99.95, 100.0])


def test_the_lead_is_the_time_until_the_next_free_slot():
    made = calendar()
    assert made.lead_s(NOW) == 0.0
    slots(made, 21)
    assert made.lead_s(NOW) == pytest.approx(2.0)
    assert made.lead_s(NOW + 5) == 0.0


def test_a_new_rate_spaces_new_slots_only():
    made = calendar()
    slots(made, 11)
    made.set_rate(5.0)
    assert made.rate_per_s == 5.0
    assert slots(made, 3) == pytest.approx([101.0, 101.2, 101.4])


def test_capacity_older_than_the_burst_is_gone():
    made = calendar()
    assert made.reserve(NOW + 60, 1.0, priority=False) == pytest.approx(NOW + 59.9)


def test_a_larger_burst_reaches_further_back():
    made = calendar()
    made.set_burst(5.0)
    assert made.reserve(NOW + 60, 1.0, priority=False) == pytest.approx(NOW + 59.5)


def test_priority_slots_have_their_share_of_the_rate_and_move_the_main_front():
    made = calendar(priority_share=0.2)
    slots(made, 101)
    assert slots(made, 3, priority=True) == pytest.approx([100.0, 100.5, 101.0])
    assert made.front == pytest.approx(110.3)


def test_a_priority_slot_is_never_later_than_the_main_one():
    made = calendar(priority_share=0.2)
    slots(made, 3)
    assert slots(made, 3, priority=True) == pytest.approx([100.0, 100.3, 100.4])


def test_past_the_horizon_there_is_no_slot_but_for_priority():
    made = calendar(horizon_s=2.0)
    assert slots(made, 23)[-2:] == [pytest.approx(102.0), None]
    assert made.reserve(NOW, 1.0, priority=True) == pytest.approx(NOW)


def test_priority_has_the_same_horizon():
    made = calendar(horizon_s=2.0, priority_share=0.2)
    slots(made, 22)
    taken = slots(made, 6, priority=True)
    assert taken[:5] == pytest.approx([100.0, 100.5, 101.0, 101.5, 102.0])
    assert taken[5] is None


def test_vacated_slots_are_taken_only_while_slots_are_promised_and_credit_is_high():
    made = calendar(burst=10.0)
    meter = Gcra(rate_per_s=10.0, burst=10.0, now=NOW)
    assert not made.take_vacated(NOW, 1.0, meter), "nothing is promised"
    slots(made, 30)
    assert made.take_vacated(NOW, 1.0, meter)
    assert meter.credit(NOW) == pytest.approx(9.0)
    meter.take(NOW, 3.1)
    assert not made.take_vacated(NOW, 1.0, meter)


def test_it_starts_after_what_other_nodes_have_promised():
    made = calendar()
    made.advance_to(NOW + 7)
    made.advance_to(NOW + 3)
    assert made.ready(NOW)
    made.admitted(1.0)
    assert slots(made, 2) == pytest.approx([107.0, 107.1])
