"""Devices that wait in the handshake for a moment, in virtual time."""

import pytest

from support.storm import Device, Town, fleet


def test_a_parked_device_that_knocks_again_waits_on_its_newer_connection():
    town = Town(rate=10, burst=1, park_s=5.0)
    older = Device("veh", 0.001, returns=False)
    newer = Device("veh", 0.002, returns=False)
    town.add([*fleet(10, 0.0), older, newer])
    town.run(until=0.002)
    front = town.calendar.front
    town.run(until=0.003)
    assert town.desk.parked == 10
    assert town.calendar.front == front, "no second slot"
    assert older.reasons == ["rate"]
    town.run()
    assert older.admitted_at is None
    assert newer.admitted_at == pytest.approx(1.0, abs=0.2)


def test_a_moment_is_waited_in_the_lot_and_the_lot_is_bounded():
    town = Town(rate=100, burst=1, lot_places=20, park_s=1.0)
    devices = fleet(200, 0.0)
    town.add(devices)
    town.run(until=0.0)
    assert town.desk.parked == 10, "walk-ins have half of it"
    town.run()
    assert all(device.admitted_at is not None for device in devices)


def test_a_device_that_hangs_up_in_the_lot_keeps_its_promise():
    town = Town(rate=100, burst=1, park_s=0.5)
    device = Device("veh", 0.001)
    town.add([*fleet(30, 0.0), device])
    town.run(until=0.01)
    assert device.knocks == 1
    assert device.admitted_at is None
    assert not device.slots
    device.pending = False
    town.desk.left(device, town.now)
    town.at(0.05, town.knock, device)
    town.run(until=0.05)
    town.run()
    assert device.admitted_at < 0.5


def test_parked_devices_are_counted():
    town = Town(rate=10, burst=1, park_s=5.0)
    town.add([Device("a", 0.0), Device("b", 0.0), Device("c", 0.0, urgent=True)])
    town.run(until=0.0)
    assert town.observer.counts["parked"] == town.desk.parked == 2


def test_a_waiter_that_the_desk_does_not_know_can_hang_up():
    town = Town()
    town.desk.left(Device("nobody", 0.0), town.now)
    assert town.desk.poll(town.now) == []


def test_a_waiter_that_hangs_up_leaves_its_place_in_the_lot():
    town = Town(rate=10, burst=1, park_s=1.0)
    town.add(fleet(5, 0.0))
    town.run(until=0.01)
    assert town.desk.parked == 4
    waiting = next(iter(town.desk.hold(town.now)))[0]
    town.desk.release()
    assert town.desk.parked == 0
    device = Device("veh", 0.0)
    assert town.desk.knock(device.claim(), device, town.now) is None
    town.desk.left(waiting, town.now)
    assert town.desk.parked == 1, "it was not in the lot any more"
    town.desk.left(device, town.now)
    assert town.desk.parked == 0
