"""What a ticket is worth, in virtual time: one slot a device, whatever it shows."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.admission.outcome import Admit, Claim
from support.storm import Device, Town, fleet


def test_an_early_ticket_gets_the_same_slot_again():
    town = Town(rate=10, burst=1)
    town.add(fleet(100, 0.0))
    device = Device("eager", 0.0)
    town.add([device])
    town.run(until=0.0)
    slot = device.slots[0]
    assert slot > 5
    for moment in (0.5, 1.0, 2.5):
        town.at(moment, town.knock, device)
    town.run(until=2.6)
    assert device.slots == pytest.approx([slot] * 4, abs=0.002)
    assert town.observer.counts["ticket_early"] == 3
    town.run()
    assert device.admitted_at == pytest.approx(slot, abs=0.3)


def test_knocking_without_the_ticket_takes_no_second_slot():
    town = Town(rate=10, burst=1)
    device = Device("forgetful", 0.001, tickets=False, returns=False)
    town.add([*fleet(100, 0.0), device])
    for n in range(50):
        town.at(0.01 + n / 100, town.knock, device)
    town.run(until=1.0)
    assert len(device.slots) == 51
    assert max(device.slots) - min(device.slots) < 0.01, "one slot, told 51 times"
    assert town.calendar.front < 11


def test_a_replayed_ticket_is_a_walk_in():
    town = Town(rate=10, burst=1)
    first = Device("veh", 0.001)
    town.add([*fleet(100, 0.0), first])
    town.run(until=11.5)
    assert first.admitted_at is not None
    again = Device("veh", 11.6, ticket=first.ticket)
    town.add([*fleet(50, 0.0, seed=2), again])
    town.run(until=11.6)
    assert town.observer.counts["ticket_replayed"] == 1


def knocks_again(town, name, times, *, ticket, every=0.01):
    """Knock `times` times with one ticket, as the same device; how often it was told what."""
    again = Device(name, town.now, ticket=ticket, tickets=False, returns=False)
    for n in range(times):
        town.at(town.now + n * every, town.knock, again)
    town.run(until=town.now + times * every)
    return again


def test_a_spent_ticket_shown_again_and_again_takes_one_slot():
    """Case C1: each time it took another."""
    town = Town(rate=10, burst=1, park_s=0.0)
    first = Device("veh", 0.001)
    town.add([*fleet(30, 0.0), first])
    town.run()
    assert first.admitted_at is not None
    town.add(fleet(50, 0.0, seed=2))
    town.run(until=town.now + 0.5)
    front = town.calendar.front
    again = knocks_again(town, "veh", 15, ticket=first.ticket)
    assert town.observer.counts["ticket_replayed"] == 15
    assert max(again.slots) - min(again.slots) < 0.01, "one slot, told 15 times"
    assert town.calendar.front - front < 2 * 1.01 / 10


@pytest.mark.parametrize("late_by", [3.0, 12.0])
def test_a_late_ticket_shown_again_and_again_takes_one_slot(late_by):
    town = Town(rate=10, burst=1, park_s=0.0, window_s=1.0, late_s=10.0)
    late = Device("veh", 0.001, returns=False)
    town.add([*fleet(10, 0.0), late])
    town.run()
    town.now = late.slots[0] + late_by
    town.add(Device(f"c-{n}", town.now) for n in range(50))
    town.run(until=town.now + 0.5)
    front = town.calendar.front
    again = knocks_again(town, "veh", 15, ticket=late.ticket)
    assert max(again.slots) - min(again.slots) < 0.01, "one slot, told 15 times"
    assert town.calendar.front - front < 2 * 1.01 / 10
    if late_by < 11.0:
        assert again.slots[0] < town.now + 1, "late: it goes before the others"
    else:
        assert again.slots[0] > town.now + 3, "too late: a walk-in like any other"


def test_a_device_with_tickets_of_two_nodes_has_no_third_slot():
    """Another node promised an earlier slot, whose window has passed since."""
    town = Town(rate=10, burst=1, park_s=0.0, window_s=1.0)
    device = Device("veh", 0.001, tickets=False, returns=False)
    town.add([*fleet(50, 0.0), device])
    town.run(until=0.01)
    town.now = 3.0
    front = town.calendar.front
    older = town.office.issue(1.0, holder=device.claim().holder, now=0.0)
    again = knocks_again(town, "veh", 3, ticket=older)
    assert again.slots == pytest.approx([device.slots[0]] * 3, abs=0.002)
    assert town.calendar.front == front


def test_a_ticket_that_was_shown_is_remembered_without_it():
    """Another node issued the ticket: from now on this node remembers its slot as well."""
    town = Town(rate=10, burst=1, park_s=0.0)
    ticket = town.office.issue(9.0, holder=Device("veh", 0).claim().holder, now=0.0)
    town.add(fleet(20, 0.0))
    town.run(until=0.01)
    shown = knocks_again(town, "veh", 1, ticket=ticket)
    silent = knocks_again(town, "veh", 1, ticket="")
    assert shown.slots == pytest.approx([9.0], abs=0.002)
    assert silent.slots == pytest.approx([9.0], abs=0.002)


def test_every_ticket_that_is_told_is_issued_anew_and_is_of_its_slot():
    """The text that a device sent as its ticket is never sent back."""
    town = Town(rate=10, burst=1, park_s=0.0)
    device = Device("veh", 0.001, returns=False)
    town.add([*fleet(50, 0.0), device])
    town.run(until=0.01)
    holder = device.claim().holder
    told = device.ticket
    # The last character of a ticket has bits that count for nothing: another text, the same slot.
    other = told[:-1] + chr(ord(told[-1]) + 1)
    for held in (False, True):
        if held:
            town.desk.hold(town.now)
        outcome = town.desk.knock(
            Claim("default", "default", holder, ticket=other), device, town.now
        )
        assert outcome.ticket == told
    outcome = town.desk.knock(
        Claim("default", "default", b"somebody", ticket='a"b\r\nX: y'), device, town.now
    )
    assert outcome.reason == "overload"
    assert town.office.check(outcome.ticket, holder=b"somebody", now=town.now).slot_at > town.now


def test_a_late_ticket_gives_priority_once():
    """The device was admitted with it, and lost that connection at once."""
    town = Town(rate=10, burst=1, park_s=0.0, window_s=1.0, late_s=100.0)
    device = Device("veh", 0)
    holder = device.claim().holder
    town.desk.knock(device.claim(), device, 0.0)
    ticket = town.office.issue(1.0, holder=holder, now=0.0)
    shown = Claim("default", "default", holder, ticket=ticket)
    assert isinstance(town.desk.knock(shown, device, 5.0), Admit)
    town.now = 5.0
    for each in fleet(50, 0.0):
        town.knock(each)
    assert town.desk.knock(shown, device, 5.0).retry_s == pytest.approx(5.0, rel=0.1)


def test_a_device_parked_on_its_ticket_can_hang_up_and_show_it_again():
    town = Town(rate=10, burst=1, park_s=0.5)
    device = Device("veh", 0.001, returns=False)
    town.add([*fleet(50, 0.0), device])
    town.run(until=0.01)
    slot = device.slots[0]
    town.at(slot - 0.4, town.knock, device)
    town.run(until=slot - 0.3)
    assert device.pending
    device.pending = False
    town.desk.left(device, town.now)
    town.at(slot - 0.2, town.knock, device)
    town.run()
    assert device.admitted_at == pytest.approx(slot, abs=0.2)
    assert "ticket_replayed" not in town.observer.counts


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.floats(0, 0.3), st.sampled_from(["none", "last", "first", "junk", "hang up"])),
        max_size=60,
    ),
    st.sampled_from([0.0, 0.5]),
)
def test_whatever_a_device_shows_it_takes_one_slot_between_admissions(steps, park_s):
    town = Town(rate=10, burst=1, park_s=park_s, window_s=1.0, late_s=5.0)
    town.add(fleet(100, 0.0, returns=False))
    town.run(until=0.0)
    device = Device("veh", 0.0, tickets=False, returns=False)
    issued = ["", ""]
    front, taken = town.calendar.front, 0
    for wait_s, shows in steps:
        town.run(until=town.now + wait_s)
        town.now += wait_s
        if shows == "hang up":
            if device.pending:
                device.pending = False
                town.desk.left(device, town.now)
            continue
        device.ticket = {"none": "", "junk": "x" * 42, "last": issued[-1], "first": issued[1]}[
            shows
        ]
        if device.pending or device.admitted_at is not None:
            break
        outcome = town.desk.knock(device.claim(), device, town.now)
        if outcome is None:
            device.pending = True
        else:
            town.settle([(device, outcome)])
            issued.append(getattr(outcome, "ticket", ""))
        taken = (town.calendar.front - front) / (1.01 / 10)
    # One slot; one more for each whole window and lateness that it let pass.
    assert taken <= 1.01 + town.now


def test_a_ticket_of_another_device_is_worth_nothing():
    town = Town(rate=10, burst=1)
    honest = Device("honest", 0.0005)
    town.add([*fleet(60, 0.0), honest])
    town.run(until=0.01)
    thief = Device("thief", 6.5, ticket=honest.ticket)
    town.add([thief])
    town.run(until=6.6)
    assert town.observer.counts["ticket_invalid"] == 1


def test_a_ticket_in_its_window_is_honoured_over_the_meter_when_the_lot_is_full():
    town = Town(rate=10, burst=1, lot_places=0)
    devices = [Device(f"veh-{n}", 0.0) for n in range(3)]
    for device in devices:
        device.ticket = town.office.issue(0.0, holder=device.claim().holder, now=0.0)
    town.add(devices)
    town.run(until=0.0)
    assert [device.admitted_at for device in devices] == [0.0, 0.0, 0.0]
    assert town.observer.counts["over_meter"] == 2


def test_a_slot_of_an_earlier_life_with_another_clock_keeps_no_device_away():
    """The clock was set back by half an hour, and the node was started again."""
    town, device = Town(rate=10, burst=1), Device("veh", 0.001)
    holder = device.claim().holder
    device.ticket = town.office.issue(1_800.0, holder=holder, now=1_799.0)
    town.add([*fleet(20, 0.0), device])
    town.run(until=10.0)
    assert device.admitted_at == pytest.approx(2.0, abs=1.0)
    assert town.observer.counts["ticket_invalid"] == 1
