"""Fleet time and local time: how fleet time is corrected, and what a step does not change."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.admission.budget import VerificationBudget
from gateway.admission.clock import TOLERANCE_S, FleetClock
from gateway.admission.errors import TicketError
from gateway.admission.gcra import KeyedLimiter
from gateway.admission.office import NodeTicketOffice

PATIENCE_S = 2.5


class World:
    """A wall clock that can be set, and a monotonic one that cannot."""

    def __init__(self, wall=1_000_000.0, local=50.0):
        self.wall_ahead = wall - local
        self.local = local
        self.clock = FleetClock(lambda: self.local + self.wall_ahead, lambda: self.local)

    def steer(self, reference, uncertainty_s=0.0):
        return self.clock.steer(reference, uncertainty_s=uncertainty_s, patience_s=PATIENCE_S)


def test_the_wall_clock_is_read_once():
    world = World()
    world.wall_ahead += 3_600
    world.local += 10
    assert world.clock() == 1_000_010.0
    assert world.clock.wall_error_s == 0, "without a fleet nobody knows better"


def test_the_first_time_the_fleet_says_is_taken_at_once():
    world = World()
    assert world.steer(996_400.0) == -3_600.0
    assert world.clock() == 996_400.0
    assert world.clock.wall_error_s == 3_600.0
    assert not world.clock.disputed


@pytest.mark.parametrize("error_s", [0.9, -0.9])
def test_a_small_error_is_corrected_as_far_as_it_is_sure(error_s):
    world = World()
    world.steer(1_000_000.0)
    assert world.steer(1_000_000.0 + error_s, uncertainty_s=0.3) == 0.0
    assert world.clock() == pytest.approx(1_000_000.0 + error_s * (0.9 - 0.3 - 0.02) / 0.9)
    for _ in range(100):
        world.steer(1_000_000.0 + error_s, uncertainty_s=0.0)
    assert world.clock() == pytest.approx(1_000_000.0 + error_s, abs=0.0201)


@pytest.mark.parametrize("error_s", [0.019, -0.019, 0.25, -0.25])
def test_noise_moves_nothing(error_s):
    world = World()
    world.steer(1_000_000.0)
    world.steer(1_000_000.0 + error_s, uncertainty_s=abs(error_s))
    assert world.clock() == 1_000_000.0


def test_a_large_error_is_disputed_first_and_a_dispute_that_ends_leaves_no_step():
    world = World()
    world.steer(1_000_000.0)
    assert world.steer(1_000_300.0) == 0.0
    assert world.clock.disputed
    world.local += PATIENCE_S - 0.1
    assert world.steer(1_000_300.0) == 0.0
    assert world.steer(world.clock()) == 0.0  # the others were of our opinion
    assert not world.clock.disputed
    world.local += PATIENCE_S
    assert world.steer(world.clock() + 300.0) == 0.0, "the next dispute begins anew"


def test_who_is_outvoted_gives_way():
    world = World()
    world.steer(1_000_000.0)
    world.steer(1_000_300.0)
    world.local += PATIENCE_S
    assert world.steer(1_000_300.0) == pytest.approx(300.0 - PATIENCE_S)
    assert world.clock() == pytest.approx(1_000_300.0)
    assert not world.clock.disputed


@pytest.mark.figures
@given(st.lists(st.floats(-7_200, 7_200), max_size=20), st.integers(0, 1_000))
@settings(deadline=None)
def test_limiters_do_not_notice_clocks_that_jump_by_hours(jumps, seed):
    """Measurements in local time do not depend on wall clocks and fleet time."""
    rng, world, still = random.Random(seed), World(), World()
    address = KeyedLimiter(rate_per_s=5, burst=10, keys_max=10)
    control = KeyedLimiter(rate_per_s=5, burst=10, keys_max=10)
    budget = VerificationBudget(share=0.2, now=world.local)
    for jump in jumps:
        world.wall_ahead += jump
        world.steer(world.clock() + jump)
        for _ in range(rng.randrange(20)):
            step = rng.uniform(0, 0.3)
            world.local += step
            still.local += step
            assert address.wait_s("a", world.local) == control.wait_s("a", still.local)
            budget.spend(0.05, world.local)
        world.local += 10
        still.local += 10
        assert budget.allows(world.local, has_ticket=False)


HOLDER = b"h" * 8


def office(world, ahead_max_s=900.0):
    return NodeTicketOffice([b"s" * 32], clock=world.clock, ahead_max_s=ahead_max_s)


@given(st.floats(0, 900), st.floats(-86_400, 86_400))
def test_a_ticket_means_the_same_moment_on_nodes_whose_clocks_differ(wait_s, wall_ahead):
    """One fleet of nodes that booted at different times and have different wall clocks."""
    here, there = World(local=5.0), World(wall=1_000_000.0 + wall_ahead, local=90_000.0)
    for world in (here, there):
        world.steer(1_000_000.0)
    text = office(here).issue(here.local + wait_s, holder=HOLDER, now=here.local)
    ticket = office(there).check(text, holder=HOLDER, now=there.local)
    assert ticket.slot_at - there.local == pytest.approx(wait_s, abs=0.002)


def test_a_ticket_of_a_clock_that_was_an_hour_ahead_keeps_nobody_out():
    wrong, right = World(wall=1_003_600.0), World(wall=1_000_000.0)
    text = office(wrong).issue(wrong.local + 10, holder=HOLDER, now=wrong.local)
    with pytest.raises(TicketError) as caught:
        office(right).check(text, holder=HOLDER, now=right.local)
    assert caught.value.reason == "ahead"


def test_the_tolerance_is_a_second():
    world = World()
    world.steer(1_000_000.0)
    world.steer(1_000_000.0 + TOLERANCE_S)
    assert not world.clock.disputed
    world.steer(world.clock() + TOLERANCE_S + 0.001)
    assert world.clock.disputed
