"""The desk over the calendar of a fleet, which may have no slots at hand."""

import pytest

from gateway.admission.calendar import CalendarSettings, SlotCalendar
from support.storm import Device, Town, fleet


class CalendarOfTheFleet(SlotCalendar):
    """Counts what it is told, and can have no slots at hand for a while."""

    def __init__(self, *, burst=1.0, rate=10.0):
        super().__init__(CalendarSettings(burst=burst), rate_per_s=rate, now=0.0)
        self.told = 0.0
        self.has_slots = True

    def ready(self, now):
        return self.has_slots

    def admitted(self, cost):
        self.told += cost


@pytest.mark.parametrize("park_s", [0.0, 5.0])
def test_the_calendar_is_told_of_every_admission(park_s):
    """By ticket, from the lot, or at once: the calendar of a fleet counts all admissions."""
    calendar = CalendarOfTheFleet(burst=5.0)
    town = Town(rate=10, burst=5, calendar=calendar, park_s=park_s)
    town.add(fleet(30, 0.0))
    town.run()
    assert len(town.admissions) == 30
    assert town.observer.counts.get("slot_given_back", 0) == 0
    assert calendar.told == 30


def test_a_device_that_waits_for_the_calendar_is_told_of_a_hold_once():
    calendar = CalendarOfTheFleet()
    calendar.has_slots = False
    town = Town(rate=10, burst=1, calendar=calendar)
    devices = fleet(3, 0.0, returns=False)
    town.add(devices)
    town.run(until=0.0)
    assert all(device.pending for device in devices)
    town.settle(town.desk.hold(town.now))
    assert [device.reasons for device in devices] == [["overload"]] * 3
    calendar.has_slots = True
    town.desk.release()
    assert town.desk.poll(town.now) == []


def test_a_device_that_waits_for_the_calendar_and_hangs_up_takes_no_slot():
    calendar = CalendarOfTheFleet()
    calendar.has_slots = False
    town = Town(rate=10, burst=1, calendar=calendar)
    device = Device("veh", 0.0, returns=False)
    town.add([device])
    town.run(until=0.0)
    town.desk.left(device, town.now)
    calendar.has_slots = True
    front = calendar.front
    assert town.desk.poll(town.now) == []
    assert calendar.front == front


def test_a_device_that_waits_for_the_calendar_twice_takes_one_slot():
    calendar = CalendarOfTheFleet()
    calendar.has_slots = False
    town = Town(rate=10, burst=1, calendar=calendar, park_s=5.0)
    twins = [Device("veh", 0.0, returns=False) for _ in range(3)]
    town.add(twins)
    town.run(until=0.0)
    assert all(twin.pending for twin in twins)
    calendar.advance_to(1.0)
    calendar.has_slots = True
    town.settle(town.desk.poll(town.now))
    assert town.desk.parked == 1
    assert calendar.front == pytest.approx(1.0 + 1.01 / 10)
    town.settle(town.desk.poll(town.now))
    assert [device.reasons for device in twins] == [["rate"], ["rate"], []]


def test_after_the_wait_for_the_calendar_a_later_slot_is_a_refusal_with_a_ticket():
    calendar = CalendarOfTheFleet()
    calendar.has_slots = False
    town = Town(rate=10, burst=1, calendar=calendar, park_s=0.0)
    twins = [Device("veh", 0.0, returns=False) for _ in range(2)]
    town.add(twins)
    town.run(until=0.0)
    calendar.advance_to(7.0)
    calendar.has_slots = True
    town.settle(town.desk.poll(town.now))
    assert [device.reasons for device in twins] == [["rate"], ["rate"]]
    assert [round(device.slots[0], 3) for device in twins] == [7.0, 7.0], "one slot, told twice"
    assert town.desk.lead_s(town.now) == pytest.approx(7.1, abs=0.01)


class HalfOfTheFleet(CalendarOfTheFleet):
    """Of a node that has half of R; hears what the node is short of."""

    share = 0.5

    def __init__(self):
        super().__init__(burst=10.0)
        self.short = []

    def short_of(self, units):
        self.short.append(units)


def test_a_node_with_a_share_of_r_says_how_many_devices_are_due_beyond_it():
    calendar = HalfOfTheFleet()
    town = Town(rate=10, burst=10, calendar=calendar, park_s=5.0)
    town.add(fleet(10, 0.0))
    town.run(until=0.0)
    assert len(town.admissions) == 5, "half of the burst"
    assert town.desk.poll(0.0) == []
    assert calendar.short[-1] == 5.0
