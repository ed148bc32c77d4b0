"""Two desks of one fleet: a slot promised by one node and used on the other counts once."""

import pytest

from gateway.admission.promises import Promises
from support.storm import Device, Town, fleet

RATE, COUNT, DIES_AT = 10, 200, 8.0


def storm_over_two_nodes(*, told):
    """A node promises slots to all devices. They use them on another, which dies.

    Returns:
        The node that is left, and the devices that were on the other.
    """
    left = Town(rate=RATE, burst=1, park_s=0.0)
    dying = Town(rate=RATE, burst=1, calendar=left.calendar, seed=2, park_s=0.0)
    devices = fleet(COUNT, 0.0, returns=False)
    left.add(devices)
    left.run(until=0.0)
    for device in devices:
        if device.admitted_at is None:
            dying.at(device.slots[-1] + 0.01, dying.knock, device)
    dying.run(until=DIES_AT)
    lost = [device for device in devices if device.admitted_at is not None][1:]
    assert len(lost) == pytest.approx(RATE * DIES_AT, abs=3)
    if told:
        left.desk.admitted_elsewhere([device.claim().holder for device in lost], DIES_AT)
    return left, [Device(device.name, DIES_AT + 0.1) for device in lost]


def test_a_slot_that_was_used_on_another_node_is_not_honoured_again():
    left, back = storm_over_two_nodes(told=True)
    promised_until = left.calendar.front
    left.add(back)
    left.run(until=DIES_AT + 2.0)
    assert not left.observer.counts.get("ticket_honoured")
    assert all(device.admitted_at is None for device in back)
    assert min(device.slots[0] for device in back) >= promised_until - 0.01
    left.run()
    assert all(device.admitted_at is not None for device in back)


def test_without_the_news_so_many_slots_are_honoured_twice():
    """Why there is the news: R goes to devices whose slots were used, beside those promised it."""
    left, back = storm_over_two_nodes(told=False)
    left.add(back)
    left.run(until=DIES_AT + 2.0)
    assert sum(device.admitted_at is not None for device in back) >= RATE


def test_a_slot_that_is_still_to_come_stays_promised():
    town = Town(rate=RATE, burst=1)
    device = Device("veh", 0.001, tickets=False, returns=False)
    town.add([*fleet(COUNT, 0.0), device])
    town.run(until=1.0)
    town.desk.admitted_elsewhere([device.claim().holder, b"stranger"], 1.0)
    town.at(1.1, town.knock, device)
    town.run(until=1.2)
    assert device.slots[1] == pytest.approx(device.slots[0], abs=0.01)


def test_the_ticket_of_a_lost_connection_is_honoured_all_the_same():
    town = Town(rate=RATE, burst=1)
    device = Device("veh", 0.001, returns=False)
    town.add([*fleet(20, 0.0, returns=False), device])
    town.run(until=0.1)
    town.desk.admitted_elsewhere([device.claim().holder], device.slots[0] + 0.1)
    town.at(device.slots[0] + 0.2, town.knock, device)
    town.run()
    assert device.admitted_at == pytest.approx(device.slots[0] + 0.2, abs=0.3)


def test_a_promise_is_forgotten_up_to_a_moment():
    promises = Promises(entries_max=10, keep_s=310.0)
    promises.hold(b"a", 5.0, now=0.0)
    promises.forget(b"a", 4.9)
    promises.forget(b"b", 4.9)
    assert promises.slot_of(b"a") == 5.0
    promises.forget(b"a", 5.0)
    assert promises.slot_of(b"a") is None
    assert promises.used_slot_of(b"a") is None
