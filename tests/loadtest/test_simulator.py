"""The simulator runs the objects of production in virtual time, and a seed determines a run."""

import dataclasses
import random
import statistics
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.devices.policies import POLICIES, make_policy
from loadtest.forecast import rate_for
from loadtest.simulator import StormPlan, StormResult, simulate
from support.commands import tidegate


def long(*values):
    """A case between those of every run."""
    return pytest.param(*values, marks=pytest.mark.long)


STORM = StormPlan(devices=4_000, rate_per_s=400)


def test_tickets_drain_a_storm_in_n_over_r_with_two_knocks():
    result = simulate(STORM)
    assert result.admitted == 4_000
    assert result.recovery_s <= 1.05 * result.ideal_s
    assert result.knocks_a_device <= 2.0
    assert result.dishonoured == 0


def test_common_policies_do_worse():
    ticket = simulate(STORM)
    jitter = simulate(dataclasses.replace(STORM, policy="full-jitter"))
    assert jitter.recovery_s > 2 * ticket.recovery_s
    assert jitter.knocks_a_device > 1.5 * ticket.knocks_a_device
    assert jitter.peak_knocks_per_s > 2 * ticket.peak_knocks_per_s


@settings(deadline=None, max_examples=15)
@given(
    st.integers(1, 2_000),
    st.floats(50, 1_000),
    st.integers(1, 4),
    st.floats(0, 0.5),
    st.floats(0, 0.01),
    st.integers(0, 1_000),
)
def test_every_device_that_comes_is_admitted(devices, rate, nodes, no_shows, clock_error, seed):
    result = simulate(
        StormPlan(
            devices=devices, rate_per_s=rate, nodes=nodes, no_shows=no_shows,
            clock_error=clock_error, seed=seed,
        )
    )  # fmt: skip
    assert result.admitted + result.absent == devices
    # At most R times the window and the burst, and the headroom of a fleet that mostly stays away.
    assert result.admitted <= rate * result.recovery_s + 100 + 2


def test_a_node_that_dies_costs_its_devices_a_knock_and_no_slot():
    result = simulate(dataclasses.replace(STORM, nodes=3, fail_node_at_s=4.0))
    assert result.admitted == 4_000
    assert result.failures > 0
    assert result.dishonoured == 0
    assert result.recovery_s <= 1.15 * result.ideal_s


@pytest.mark.parametrize("down_s", [2.0, long(5.0), 10.0, long(20.0), 45.0])
def test_a_restart_of_all_nodes_costs_the_time_they_were_down(down_s):
    result = simulate(dataclasses.replace(STORM, nodes=3, down_s=down_s))
    assert result.admitted == 4_000
    assert result.recovery_over_ideal <= 1.15
    assert result.dishonoured == 0
    # A closed port is tried about once in each first_retry_ms.
    assert result.knocks_a_device <= 3 + down_s * 1_000 / result.plan.first_retry_ms
    calm = simulate(dataclasses.replace(STORM, nodes=3))
    assert result.peak_knocks_per_s <= 1.5 * calm.peak_knocks_per_s


@pytest.mark.parametrize(
    ("held_s", "nodes"),
    [
        (0.3, 1), (1.0, 3), (3.0, 1), (10.0, 3), (40.0, 1),
        long(0.3, 3), long(1.0, 1), long(3.0, 3), long(10.0, 1), long(40.0, 3),
    ],
)  # fmt: skip
def test_a_start_that_admits_nobody_at_first_costs_no_more_than_its_hold(nodes, held_s):
    plan = dataclasses.replace(STORM, nodes=nodes, down_s=2.0, held_s=held_s)
    result = simulate(plan)
    assert result.admitted == 4_000
    assert result.recovery_over_ideal <= 1.15
    assert result.dishonoured == 0
    # Each device asks about once in N/R while the hold lasts.
    assert result.knocks_a_device <= 4 + held_s / result.ideal_s
    assert result.peak_knocks_per_s <= 1.5 * simulate(STORM).peak_knocks_per_s


def test_a_device_without_a_slot_waits_as_its_client_does():
    # Past the horizon a refusal has a time and no ticket, so the client adds its own jitter to it.
    result = simulate(StormPlan(devices=2_000, rate_per_s=0.5, refusals_per_s=1.0, burst=1.0))
    assert result.admitted == 2_000
    assert result.recovery_over_ideal <= 1.05
    assert result.knocks_a_device <= 2.35
    assert result.most_knocks <= 5


def test_a_few_devices_ask_a_long_hold_ever_more_seldom():
    result = simulate(StormPlan(devices=20, rate_per_s=400, held_s=60.0))
    assert result.admitted == 20
    assert result.most_knocks <= 25
    assert result.recovery_s <= 60.0 + 10.0 + 1.0


def test_one_seed_is_one_run():
    first, second = simulate(STORM), simulate(STORM)
    assert first.waits == second.waits
    assert simulate(dataclasses.replace(STORM, seed=2)).waits != first.waits


@pytest.mark.parametrize("count", [2, 3, 99, 100, 101, 1_000])
def test_percentiles_are_those_of_the_standard_library(count):
    waits = array("d", sorted(random.Random(count).random() for _ in range(count)))
    result = StormResult(STORM, waits=waits)
    cuts = statistics.quantiles(waits, n=100)
    assert [result.wait_s(percent) for percent in range(1, 100)] == cuts


def test_a_percentile_of_one_wait_is_that_wait_and_of_none_is_zero():
    assert StormResult(STORM, waits=array("d", [7.0])).wait_s(99) == 7.0
    assert StormResult(STORM).wait_s(50) == 0.0


def test_the_rate_that_is_needed_is_found():
    needed = rate_for(dataclasses.replace(STORM, devices=4_000), 40.0)
    assert needed == pytest.approx(100, rel=0.05)


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_brings_every_device_in(name):
    result = simulate(StormPlan(devices=200, rate_per_s=100, policy=name))
    assert result.admitted == 200


def test_an_unknown_policy_is_an_error():
    with pytest.raises(KeyError):
        make_policy("hope", None)


def test_the_command():
    done = tidegate(
        "simulate", "--devices", 2_000, "--rate", 200, "--policy", "ticket", "--policy", "fixed",
        "--down", 5,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "recovery / (N/R)" in done.stdout
    assert "2,000" in done.stdout
    within = tidegate("simulate", "--devices", 2_000, "--within", 10)
    assert within.stdout.startswith("ticket: R = 19"), (
        "a little less than N/T: the burst comes free"
    )
    wrong = tidegate("simulate", "--devices", 10, "--policy", "hope")
    assert (wrong.returncode, "full-jitter" in wrong.stderr) == (1, True)
    alone = tidegate("simulate", "--devices", 10, "--fail-node-at", 1)
    assert "--nodes" in alone.stderr
