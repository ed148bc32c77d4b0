"""The newest connection has the highest fence, also if fleet time steps."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.cluster.fences import Fences


class Clock:
    now = 1_000_000.0

    def __call__(self):
        return self.now


def test_a_fence_is_fleet_time_and_rises_within_one_moment():
    clock = Clock()
    fences = Fences(clock)
    assert fences.next() == 1_000_000_000_000
    assert fences.next() == 1_000_000_000_001
    clock.now += 1
    assert fences.next() == 1_000_001_000_000


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(-7_200, 7_200)), max_size=20))
def test_after_a_step_new_fences_are_above_those_that_moved_and_near_the_time(moments):
    clock = Clock()
    fences, held = Fences(clock), []
    for passed, step in moments:
        clock.now += passed
        held.append(fences.next())
        clock.now += step
        fences.step(step)
        held = [fences.moved(fence, step) for fence in held]
        new = fences.next()
        assert all(new > fence for fence in held)
        assert abs(new - clock.now * 1e6) < 1_000
        held.append(new)
