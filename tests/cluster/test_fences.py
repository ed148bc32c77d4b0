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


class Page:
    """Of two workers."""

    def __init__(self):
        self.fences = {}

    def of(self, worker):
        return _Word(self, worker)


class _Word:
    def __init__(self, page, worker):
        self.page, self.worker = page, worker

    def highest_fence(self):
        return max(self.page.fences.values(), default=0)

    def write_fence(self, fence):
        self.page.fences[self.worker] = fence


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 0.1), st.floats(-0.4, 0.4))))
def test_fences_of_workers_rise_in_the_order_in_which_they_are_given(moments):
    """Whatever their clocks say: they differ, and each is corrected now and then."""
    page, clocks, given_fences = Page(), [Clock(), Clock()], []
    fences = [Fences(clock, page.of(worker)) for worker, clock in enumerate(clocks)]
    truth = Clock.now
    for worker, passed, error in moments:
        truth += passed
        clocks[worker].now = truth + error
        given_fences.append(fences[worker].next())
    assert given_fences == sorted(set(given_fences))


def test_a_worker_whose_clock_is_in_dispute_does_not_pull_the_others_along():
    page, right, wrong = Page(), Clock(), Clock()
    fences, others = Fences(right, page.of(0)), Fences(wrong, page.of(1))
    wrong.now += 3_600
    others.next()
    assert fences.next() == right.now * 1e6
    wrong.now -= 3_600
    others.step(-3_600)
    assert fences.next() < others.next() < right.now * 1e6 + 10
