"""The promises of admission, in virtual time: rate, recovery, utilisation, horizon, holds."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.storm import Device, Town, fleet, worst_excess

FLEETS = st.integers(1, 400)
RATES = st.floats(5, 2_000)


@pytest.mark.figures
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


@pytest.mark.figures
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


@pytest.mark.figures
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


@pytest.mark.figures
@settings(deadline=None, max_examples=30)
@given(st.integers(50, 400), st.floats(20, 500), st.integers(0, 99))
def test_a_device_that_only_honours_the_time_does_not_starve(count, rate, seed):
    """Devices that obey Retry-After in whole seconds and show no ticket, like curl."""
    town = Town(rate=rate, burst=10, seed=seed)
    plain = fleet(count, 1.0, seed, tickets=False, lateness=1.0)
    town.add(plain)
    town.run()
    assert max(device.knocks for device in plain) <= 2


@pytest.mark.figures
def test_slots_that_no_device_claims_go_to_the_next_knocks():
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


@pytest.mark.figures
@pytest.mark.parametrize("rate", [50, 500, pytest.param(2_000, marks=pytest.mark.long)])
def test_sustained_admission_is_within_two_percent_of_the_rate(rate):
    town = Town(rate=rate, burst=rate / 5)
    town.add(fleet(rate * 90, spread=60.0))
    town.run(until=70)
    count = sum(5 <= time < 65 for time in town.admissions)
    assert count == pytest.approx(rate * 60, rel=0.02)


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


def test_past_the_horizon_every_device_is_admitted_in_the_end():
    town = Town(rate=20, burst=1, horizon_s=5.0)
    devices = fleet(600, 0.0)
    town.add(devices)
    town.run()
    assert all(device.admitted_at is not None for device in devices)
    assert max(town.admissions) < 2.0 * 600 / 20


def test_in_a_hold_no_device_is_admitted_and_all_keep_their_promises():
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


def test_a_smaller_burst_admits_fewer_at_once():
    town = Town(rate=10, burst=5)
    town.calendar.set_burst(2)
    town.desk.set_burst(2)
    devices = [Device(f"veh-{number}", 0.0) for number in range(5)]
    town.add(devices)
    town.run(until=0.0)
    assert len(town.admissions) == 2


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


def test_a_seed_repeats_a_run():
    def run():
        town = Town(rate=50, burst=5, seed=4)
        town.add(fleet(300, 2.0, returns=True))
        return town.run().admissions

    assert run() == run()
