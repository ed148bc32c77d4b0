"""Which devices go first, in virtual time: late, urgent, and those that had little."""

import pytest

from support.storm import Device, Town, fleet, worst_excess


def test_a_late_holder_goes_before_walk_ins():
    town = Town(rate=20, burst=1, window_s=2.0)
    late = Device("late", 0.001, returns=False)
    town.add([*fleet(40, 0.0), late])
    town.run(until=0.01)
    came = late.slots[0] + 3.0
    town.at(came - 0.5, lambda: town.add(fleet(400, 0.1, seed=9)))
    for device in (crowd := [Device(f"c-{n}", came - 0.4) for n in range(400)]):
        town.add([device])
    late.returns = True
    town.at(came, town.knock, late)
    town.run()
    assert late.admitted_at - came < 1.5
    assert sum(device.admitted_at > late.admitted_at for device in crowd) > 300
    assert town.observer.counts["ticket_late"] == 1


@pytest.mark.figures
def test_urgent_devices_go_first_and_do_not_starve_the_rest():
    town = Town(rate=100, burst=20)
    normal = fleet(1_800, 1.0, seed=1)
    urgent = [Device(f"u-{n}", n / 200, urgent=True) for n in range(200)]
    town.add([*normal, *urgent])
    town.run()
    assert max(device.admitted_at for device in urgent) < 12
    assert sum(device.admitted_at for device in urgent) / 200 < 8
    assert max(device.admitted_at for device in normal) <= 1.05 * 20
    assert max(device.knocks for device in normal) <= 2
    assert worst_excess(town.admissions, 100, 20) <= 1 + town.observer.counts.get("over_meter", 0)


def test_a_priority_ticket_waits_at_the_head_of_the_lot():
    town = Town(rate=10, burst=1)
    devices = [Device("plain", 0.0), Device("first", 0.0)]
    for device in devices:
        device.ticket = town.office.issue(
            0.5, holder=device.claim().holder, now=0.0, priority=device.name == "first"
        )
    town.add(devices)
    town.run()
    plain, first = (device.admitted_at for device in devices)
    assert first < plain


@pytest.mark.figures
def test_one_depot_cannot_take_every_slot():
    town = Town(rate=100, burst=20)
    depot = fleet(2_000, 1.0, group="depot")
    others = [Device(f"o-{n}", 1.0 + n / 10, group=f"site-{n % 5}") for n in range(50)]
    town.add([*depot, *others])
    town.run()
    waits = [device.admitted_at - device.arrives for device in others]
    assert sum(waits) / len(waits) < 2.0
    assert max(device.admitted_at for device in depot) <= 1.05 * 2_050 / 100


@pytest.mark.figures
def test_one_tenant_cannot_take_every_slot():
    town = Town(rate=100, burst=20)
    big = fleet(2_000, 1.0, tenant="big")
    small = [Device(f"s-{n}", 1.0 + n / 10, tenant="small") for n in range(40)]
    town.add([*big, *small])
    town.run()
    waits = [device.admitted_at - device.arrives for device in small]
    assert sum(waits) / len(waits) < 2.0
