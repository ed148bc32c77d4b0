"""In a hold nobody is admitted, and every device leaves with a slot of its own."""

import random

import pytest

from gateway.admission.hold import Hold
from support.storm import Device, Town, fleet


def in_hold(town, device):
    """Let `device` knock once, and return what it was told."""
    device.returns = False
    outcome = town.desk.knock(device.claim(), device, town.now)
    town.settle([(device, outcome)])
    return outcome


@pytest.mark.parametrize(
    ("lasted_s", "longest_s"), [(0.0, 1.0), (3.0, 1.0), (20.0, 5.0), (40.0, 10.0), (4_000.0, 10.0)]
)
def test_the_pause_grows_with_the_hold_up_to_its_bound(lasted_s, longest_s):
    hold = Hold(since=100.0, pause_s_max=10.0, rng=random.Random(1))
    pauses = [hold.pause_s(100.0 + lasted_s) for _ in range(1_000)]
    assert longest_s * 0.5 <= min(pauses) < longest_s * 0.55
    assert longest_s * 0.95 < max(pauses) <= longest_s


def test_a_slot_that_is_still_to_come_is_told_again():
    town = Town(rate=10, burst=1)
    device = Device("veh", 0.001, returns=False)
    town.add([*fleet(100, 0.0), device])
    town.run(until=0.01)
    slot = device.slots[0]
    town.desk.hold(town.now)
    town.now = 2.0
    front = town.calendar.front
    told = in_hold(town, device)
    assert told.reason == "overload"
    assert town.now + told.retry_s == pytest.approx(slot, abs=0.002)
    assert town.calendar.front == front, "no second slot"


def test_a_slot_that_comes_in_the_hold_is_replaced_by_the_next_free_one():
    town = Town(rate=10, burst=1, park_s=0.0)
    device = Device("veh", 0.001, returns=False)
    town.add([*fleet(50, 0.0, returns=False), device])
    town.run(until=0.01)
    first = device.ticket
    town.desk.hold(town.now)
    town.now = device.slots[0] + 0.1
    front = max(town.calendar.front, town.now)
    in_hold(town, device)
    assert device.slots[1] >= front
    assert device.ticket != first
    town.desk.release()
    device.ticket = first
    in_hold(town, device)
    assert town.observer.counts["ticket_replayed"] == 1, "one slot: the first is gone"


def test_a_priority_ticket_stays_one():
    town = Town(rate=10, burst=1, park_s=0.0)
    town.desk.hold(town.now)
    town.add(fleet(200, 0.0, returns=False))
    town.run(until=0.0)
    town.now = 3.0
    urgent = Device("urgent", 3.0, urgent=True)
    in_hold(town, urgent)
    assert urgent.slots[0] < 10.0 < town.calendar.front
    town.now = urgent.slots[0]
    urgent.urgent = False
    in_hold(town, urgent)
    assert urgent.slots[1] < town.calendar.front - 5.0


def test_who_waits_in_the_lot_is_refused_with_a_slot():
    town = Town(rate=100, burst=1, park_s=0.5)
    devices = fleet(40, 0.0, returns=False)
    town.add(devices)
    town.run(until=0.0)
    parked = [device for device in devices if device.pending]
    assert parked
    town.settle(town.desk.hold(town.now))
    assert all(device.reasons == ["overload"] and device.ticket for device in parked)
    assert not town.desk.parked
    assert town.desk.held


def test_past_the_horizon_there_is_a_time_and_no_slot():
    town = Town(rate=10, burst=1, horizon_s=2.0)
    town.desk.hold(town.now)
    town.add(fleet(100, 0.0, returns=False))
    town.run(until=0.0)
    late = Device("veh", 0.0)
    told = in_hold(town, late)
    assert (told.reason, told.ticket) == ("overload", "")
    assert 1.0 <= told.retry_s <= 2.0
