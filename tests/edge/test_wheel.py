import random
import weakref

import pytest

from gateway.edge import sliced
from gateway.edge.wheel import TimingWheel


class Loop:
    """A loop whose time is set by the test."""

    def __init__(self):
        self.now = 100.0
        self.timers = []

    def time(self):
        return self.now

    def call_later(self, delay, callback):
        handle = Handle(self.now + delay, callback)
        self.timers.append(handle)
        return handle

    def call_soon(self, callback):
        return self.call_later(0, callback)

    def advance(self, seconds):
        self.now += seconds
        while due := [t for t in self.timers if t.when <= self.now and not t.cancelled]:
            self.timers.remove(due[0])
            due[0].callback()


class Handle:
    def __init__(self, when, callback):
        self.when, self.callback, self.cancelled = when, callback, False

    def cancel(self):
        self.cancelled = True


class Item:
    def __init__(self):
        self.due_tick = -1
        self.fired = []

    def on_due(self, now):
        self.fired.append(now)


@pytest.mark.parametrize("phase_s", [0.0, 0.03])
def test_deadlines_fire_late_by_two_ticks_or_six_if_they_were_far_and_never_early(phase_s):
    loop, rng = Loop(), random.Random(1)
    wheel = TimingWheel(loop, tick_s=0.1, phase_s=phase_s)
    due = {Item(): 100 + rng.uniform(0, 20) for _ in range(500)}
    for item, at in due.items():
        wheel.schedule(item, at)
    while loop.now < 121:
        loop.advance(0.05)
    for item, at in due.items():
        assert len(item.fired) == 1
        assert at <= item.fired[0] <= at + (0.2 if at < 105 else 0.6)


def test_far_deadlines_fire_together_and_the_wheel_wakes_for_no_others():
    loop, rng = Loop(), random.Random(2)
    wheel = TimingWheel(loop, tick_s=0.1, phase_s=0.03)
    items = [Item() for _ in range(500)]
    for item in items:
        wheel.schedule(item, 100 + rng.uniform(10, 20))
    wakes = []
    while alive := [timer for timer in loop.timers if not timer.cancelled]:
        wakes.append(alive[0].when)
        loop.advance(alive[0].when - loop.now)
    fired = {at for item in items for at in item.fired}
    assert sorted(fired) == pytest.approx([110.53 + number / 2 for number in range(20)], abs=0.01)
    assert {round(at, 3) for at in wakes} == {round(at, 3) for at in fired}


def test_a_nearer_deadline_wakes_the_wheel_sooner():
    loop = Loop()
    wheel = TimingWheel(loop, tick_s=0.1)
    far, near = Item(), Item()
    wheel.schedule(far, 130)
    wheel.schedule(near, 101)
    loop.advance(1.2)
    assert (len(near.fired), len(far.fired)) == (1, 0)
    loop.advance(30)
    assert len(far.fired) == 1


def test_rescheduling_and_cancelling():
    loop = Loop()
    wheel = TimingWheel(loop, tick_s=0.1)
    moved, cancelled = Item(), Item()
    wheel.schedule(moved, 101)
    wheel.schedule(moved, 105)
    wheel.schedule(cancelled, 101)
    wheel.cancel(cancelled)
    loop.advance(3)
    assert (moved.fired, cancelled.fired) == ([], [])
    loop.advance(3)
    assert len(moved.fired) == 1
    assert cancelled.fired == []


def test_a_stalled_loop_misses_no_deadline():
    loop = Loop()
    wheel = TimingWheel(loop, tick_s=0.1)
    items = [Item() for _ in range(50)]
    for number, item in enumerate(items):
        wheel.schedule(item, 100 + number / 10)
    loop.advance(60)
    assert all(len(item.fired) == 1 for item in items)


def test_an_idle_wheel_sets_no_timer():
    loop = Loop()
    wheel = TimingWheel(loop, tick_s=0.1)
    wheel.schedule(Item(), 100.5)
    cancelled = Item()
    wheel.schedule(cancelled, 101.5)
    wheel.cancel(cancelled)
    loop.advance(1)
    assert loop.timers == []
    wheel.close()


def test_the_wheel_lets_go_of_what_is_cancelled_or_moved():
    loop = Loop()
    wheel = TimingWheel(loop, tick_s=0.1)
    cancelled, moved = Item(), Item()
    references = weakref.ref(cancelled), weakref.ref(moved)
    wheel.schedule(cancelled, 130)
    wheel.schedule(moved, 130)
    wheel.schedule(moved, 140)
    wheel.cancel(cancelled)
    wheel.cancel(moved)
    del cancelled, moved
    assert [reference() for reference in references] == [None, None]


def test_a_deadline_that_fires_may_cancel_another_of_its_tick():
    loop = Loop()
    wheel = TimingWheel(loop, tick_s=0.1)

    class Killer(Item):
        def on_due(self, now):
            super().on_due(now)
            for each in items:
                wheel.cancel(each)

    items = [Killer(), Killer()]
    for each in items:
        wheel.schedule(each, 101)
    loop.advance(2)
    assert sorted(len(each.fired) for each in items) == [0, 1]


def test_the_deadlines_of_a_tick_fire_in_slices(monkeypatch):
    spent = [0.0]
    monkeypatch.setattr(sliced, "perf_counter", lambda: spent[0])
    loop = Loop()
    wheel = TimingWheel(loop, tick_s=0.1)

    class Slow(Item):
        def on_due(self, now):
            super().on_due(now)
            spent[0] += 1.0

    items = [Slow() for _ in range(3)]
    for each in items:
        wheel.schedule(each, 101)
    fired = []
    loop.now = 102
    while loop.timers:  # one turn of the loop after the other
        turn, loop.timers = loop.timers, []
        for timer in turn:
            timer.callback()
        fired.append(sum(len(each.fired) for each in items))
    assert fired == [0, 1, 2, 3]
