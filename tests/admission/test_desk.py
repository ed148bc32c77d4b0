"""The promises of admission, in virtual time."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.admission.calendar import CalendarSettings, SlotCalendar
from gateway.admission.outcome import Claim
from support.storm import Device, Town, fleet, worst_excess

FLEETS = st.integers(1, 400)
RATES = st.floats(5, 2_000)


def test_a_storm_drains_in_n_over_r_with_two_knocks_a_device():
    town = Town(rate=500)
    devices = fleet(10_000, spread=2.0)
    town.add(devices)
    town.run()
    assert all(device.admitted_at is not None for device in devices)
    assert max(town.admissions) <= 1.05 * 10_000 / 500
    assert sum(device.knocks for device in devices) / 10_000 <= 2.1
    assert worst_excess(town.admissions, 500, 100) <= 1
    assert "over_meter" not in town.observer.counts


@settings(deadline=None, max_examples=60)
@given(FLEETS, RATES, st.integers(1, 100), st.floats(0, 20), st.floats(0, 3), st.integers(0, 99))
def test_admissions_in_any_window_stay_within_rate_and_burst(
    count, rate, burst, spread, lateness, seed
):
    town = Town(rate=rate, burst=burst, seed=seed, cold_cost=1.0)
    devices = fleet(count, spread, seed, lateness=lateness)
    town.add(devices)
    town.run()
    assert len(town.admissions) == count
    kept_over = town.observer.counts.get("over_meter", 0)
    # Only a promise that has waited its patience goes over the meter, and it is counted.
    assert worst_excess(town.admissions, rate, burst) <= 1 + 1e-6 + kept_over


@settings(deadline=None, max_examples=60)
@given(FLEETS, RATES, st.floats(0, 5), st.floats(0, 9), st.integers(0, 99))
def test_every_ticket_is_honoured(count, rate, spread, lateness, seed):
    town = Town(rate=rate, seed=seed)
    devices = fleet(count, spread, seed, lateness=lateness)
    town.add(devices)
    town.run()
    for device in devices:
        # In its window the second knock is the last, whatever others do.
        assert device.knocks <= 2
        if device.slots:
            assert device.admitted_at <= device.slots[0] + lateness + 5.0 + 1e-3


@settings(deadline=None, max_examples=30)
@given(st.integers(50, 400), st.floats(20, 500), st.integers(0, 99))
def test_nobody_starves_who_only_honours_the_time(count, rate, seed):
    """Devices that obey Retry-After in whole seconds and show no ticket, like curl."""
    town = Town(rate=rate, burst=10, seed=seed)
    plain = fleet(count, 1.0, seed, tickets=False, lateness=1.0)
    town.add(plain)
    town.run()
    assert max(device.knocks for device in plain) <= 2


def test_slots_nobody_claims_go_to_whoever_knocks():
    rate, seconds = 200, 60
    town = Town(rate=rate, burst=50, seed=3)
    rng = random.Random(5)
    # Arrivals at 1.5 R without end: somebody always waits. 30 % never come back for their slot.
    devices = [
        Device(f"veh-{n}", rng.uniform(0, seconds), returns=rng.random() >= 0.3)
        for n in range(int(1.5 * rate * seconds))
    ]
    town.add(devices)
    town.run(until=seconds)
    steady = [time for time in town.admissions if time >= 2]
    assert len(steady) / (rate * (seconds - 2)) >= 0.98
    assert worst_excess(town.admissions, rate, 50) <= 1
    assert town.observer.counts["slot_given_back"] > 0


@pytest.mark.parametrize("rate", [50, 500, pytest.param(2_000, marks=pytest.mark.long)])
def test_sustained_admission_is_within_two_percent_of_the_rate(rate):
    town = Town(rate=rate, burst=rate / 5)
    town.add(fleet(rate * 90, spread=60.0))
    town.run(until=70)
    count = sum(5 <= time < 65 for time in town.admissions)
    assert count == pytest.approx(rate * 60, rel=0.02)


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


def test_who_is_parked_on_a_ticket_and_hangs_up_can_show_it_again():
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


def test_a_ticket_of_somebody_else_is_worth_nothing():
    town = Town(rate=10, burst=1)
    honest = Device("honest", 0.0005)
    town.add([*fleet(60, 0.0), honest])
    town.run(until=0.01)
    thief = Device("thief", 6.5, ticket=honest.ticket)
    town.add([thief])
    town.run(until=6.6)
    assert town.observer.counts["ticket_invalid"] == 1


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


def test_one_depot_cannot_take_every_slot():
    town = Town(rate=100, burst=20)
    depot = fleet(2_000, 1.0, group="depot")
    others = [Device(f"o-{n}", 1.0 + n / 10, group=f"site-{n % 5}") for n in range(50)]
    town.add([*depot, *others])
    town.run()
    waits = [device.admitted_at - device.arrives for device in others]
    assert sum(waits) / len(waits) < 2.0
    assert max(device.admitted_at for device in depot) <= 1.05 * 2_050 / 100


def test_one_tenant_cannot_take_every_slot():
    town = Town(rate=100, burst=20)
    big = fleet(2_000, 1.0, tenant="big")
    small = [Device(f"s-{n}", 1.0 + n / 10, tenant="small") for n in range(40)]
    town.add([*big, *small])
    town.run()
    waits = [device.admitted_at - device.arrives for device in small]
    assert sum(waits) / len(waits) < 2.0


def test_resuming_costs_less_than_a_cold_connect():
    def recovery(known):
        town = Town(rate=100, burst=10, resume_cost=0.5)
        town.add(fleet(1_000, 1.0, known=known))
        return max(town.run().admissions)

    assert recovery(known=True) == pytest.approx(recovery(known=False) / 2, rel=0.1)


def test_past_the_horizon_a_time_and_no_slot():
    town = Town(rate=10, burst=1, horizon_s=5.0)
    devices = fleet(200, 0.0, returns=False)
    town.add(devices)
    town.run(until=0.0)
    without = [device for device in devices if device.reasons and not device.slots]
    assert len(without) == pytest.approx(150, abs=3)
    assert town.observer.counts["past_horizon"] == len(without)
    for device in without:
        device.returns = True


def test_past_the_horizon_everybody_comes_in_all_the_same():
    town = Town(rate=20, burst=1, horizon_s=5.0)
    devices = fleet(600, 0.0)
    town.add(devices)
    town.run()
    assert all(device.admitted_at is not None for device in devices)
    assert max(town.admissions) < 2.0 * 600 / 20


def test_a_moment_is_waited_in_the_lot_and_the_lot_is_bounded():
    town = Town(rate=100, burst=1, lot_places=20, park_s=1.0)
    devices = fleet(200, 0.0)
    town.add(devices)
    town.run(until=0.0)
    assert town.desk.parked == 10, "walk-ins have half of it"
    town.run()
    assert all(device.admitted_at is not None for device in devices)


def test_who_hangs_up_in_the_lot_keeps_the_promise():
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


def test_in_a_hold_nobody_comes_in_and_everybody_keeps_what_was_promised():
    town = Town(rate=100, burst=1)
    devices = fleet(150, 0.0)
    town.add(devices)
    town.run(until=0.1)
    before = len(town.admissions)
    parked = town.desk.parked
    assert parked
    town.settle(town.desk.hold(town.now))
    assert town.desk.parked == 0
    town.run(until=3.0)
    assert len(town.admissions) == before
    assert any("overload" in device.reasons for device in devices)
    town.desk.release()
    town.run()
    assert all(device.admitted_at is not None for device in devices)


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
def test_the_calendar_is_told_of_everybody_who_is_let_in(park_s):
    """By ticket, from the lot, or at once: the calendar of a fleet counts all admissions."""
    calendar = CalendarOfTheFleet(burst=5.0)
    town = Town(rate=10, burst=5, calendar=calendar, park_s=park_s)
    town.add(fleet(30, 0.0))
    town.run()
    assert len(town.admissions) == 30
    assert town.observer.counts.get("slot_given_back", 0) == 0
    assert calendar.told == 30


def test_who_waits_for_the_calendar_is_told_of_a_hold_and_not_again():
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


def test_who_waits_for_the_calendar_and_hangs_up_takes_no_slot():
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


def test_whoever_is_parked_is_counted():
    town = Town(rate=10, burst=1, park_s=5.0)
    town.add([Device("a", 0.0), Device("b", 0.0), Device("c", 0.0, urgent=True)])
    town.run(until=0.0)
    assert town.observer.counts["parked"] == town.desk.parked == 2


def test_a_lower_rate_keeps_promises():
    town = Town(rate=100, burst=10)
    devices = fleet(500, 0.5)
    town.add(devices)
    town.run(until=1.0)
    town.calendar.set_rate(50)
    town.desk.set_rate(50, town.now)
    town.run()
    for device in devices:
        assert device.knocks <= 2
        assert device.admitted_at <= (device.slots or [math.inf])[0] + 0.2 + 5.01


def test_a_promise_is_kept_after_its_patience_even_if_nobody_else_knocks():
    town = Town(rate=100, burst=1, patience_s=5.0)
    devices = fleet(300, 0.0)
    town.add(devices)
    town.run(until=1.0)
    town.calendar.set_rate(0.001)
    town.desk.set_rate(0.001, town.now)
    town.run()
    assert max(town.admissions) <= 3.1 + 0.2 + 5.01
    assert town.observer.counts["over_meter"] > 0


def test_one_seed_is_one_fate():
    def run():
        town = Town(rate=50, burst=5, seed=4)
        town.add(fleet(300, 2.0, returns=True))
        return town.run().admissions

    assert run() == run()


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


def test_a_waiter_that_the_desk_does_not_know_can_hang_up():
    town = Town()
    town.desk.left(Device("nobody", 0.0), town.now)
    assert town.desk.poll(town.now) == []


def test_a_ticket_in_its_window_is_honoured_over_the_meter_when_the_lot_is_full():
    town = Town(rate=10, burst=1, lot_places=0)
    devices = [Device(f"veh-{n}", 0.0) for n in range(3)]
    for device in devices:
        device.ticket = town.office.issue(0.0, holder=device.claim().holder, now=0.0)
    town.add(devices)
    town.run(until=0.0)
    assert [device.admitted_at for device in devices] == [0.0, 0.0, 0.0]
    assert town.observer.counts["over_meter"] == 2
