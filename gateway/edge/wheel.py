"""A hashed timing wheel (Varghese and Lauck, 1987): one loop timer for all connections' deadlines.

A timer handle a connection would cost more memory than the rest of its keepalive. Deadlines fire
late rather than early: near ones by a tick at most, and those that are seconds away by four
ticks more, many together, because a process that wakes for each tick pays more for its cold caches
than for the pings. In a gateway, these moments are the beats of its periodic work, too
(`gateway/beats.py`). Until the next deadline, the wheel does not wake at all.

Those of one tick fire in slices: 10,000 connections have 170 in a quarter of a second, which would
keep every ack waiting for 7 ms.
"""

import asyncio
import sys
from typing import Final, Protocol

from gateway.edge.sliced import Sliced

_NEVER: Final = -1
_NO_TICK: Final = sys.maxsize
_COARSE_TICKS: Final = 5
"""Deadlines that are far away fire at multiples of so many ticks."""
_FAR_TICKS: Final = 50
_ROUNDING_S: Final = 0.0005
"""uvloop rounds to milliseconds, and a timer that fires early would be followed by another."""
_SLICE_S: Final = 300e-6
"""How long deadlines may fire in one turn of the loop."""


class Deadline(Protocol):
    """An object with one deadline at a time."""

    due_tick: int
    """The tick at which it fires, -1 for none. Only the wheel writes it."""

    def on_due(self, now: float) -> None:
        """The deadline passed. `now` is loop time in seconds."""


class TimingWheel:
    """Deadlines by tick. Times are loop time in seconds."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, tick_s: float = 0.05, phase_s: float = 0.0
    ) -> None:
        """
        Args:
            loop: has the time, and the timer.
            tick_s: the precision of deadlines that are near.
            phase_s: ticks are at multiples of `tick_s`, this much later.
        """
        self._loop = loop
        self._tick_s = tick_s
        self._phase_s = phase_s
        self._far_s = _FAR_TICKS * tick_s
        self._buckets: dict[int, set[Deadline]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_tick = _NO_TICK
        self._last_tick = int((loop.time() - phase_s) / tick_s)
        self._due: Sliced[tuple[int, Deadline]] = Sliced(loop, _SLICE_S, self._fire)

    def schedule(self, deadline: Deadline, due_at: float) -> None:
        """Let `deadline` fire at `due_at`, and no longer at the moment set before."""
        tick = int((due_at - self._phase_s) / self._tick_s) + 1
        if due_at - self._loop.time() >= self._far_s:
            tick += -tick % _COARSE_TICKS
        elif tick <= self._last_tick:
            tick = self._last_tick + 1
        if tick == deadline.due_tick:
            return
        self.cancel(deadline)
        deadline.due_tick = tick
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = set()
            if tick < self._timer_tick:
                self._wake_at(tick)
        bucket.add(deadline)

    def cancel(self, deadline: Deadline) -> None:
        """Do not let `deadline` fire, and let go of it: a closed connection is freed at once."""
        bucket = self._buckets.get(deadline.due_tick)
        if bucket is not None:
            bucket.discard(deadline)
            if not bucket:
                del self._buckets[deadline.due_tick]
        deadline.due_tick = _NEVER

    def close(self) -> None:
        self._sleep()
        self._buckets.clear()
        self._due.clear()

    def _sleep(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_tick = _NO_TICK

    def _wake_at(self, tick: int) -> None:
        self._sleep()
        self._timer_tick = tick
        rest_s = tick * self._tick_s + self._phase_s - self._loop.time() + _ROUNDING_S
        self._timer = self._loop.call_later(max(0.0, rest_s), self._turn)

    def _turn(self) -> None:
        self._timer = None
        self._timer_tick = _NO_TICK
        current = int((self._loop.time() - self._phase_s) / self._tick_s)
        self._last_tick = max(self._last_tick, current)
        # After a stall of the loop, every tick that was missed is due.
        for tick in sorted(tick for tick in self._buckets if tick <= current):
            for deadline in self._buckets.pop(tick):
                self._due.add((tick, deadline))
        if self._buckets:
            self._wake_at(min(self._buckets))

    def _fire(self, due: tuple[int, Deadline]) -> None:
        tick, deadline = due
        if deadline.due_tick == tick:  # else it was cancelled or moved while it waited
            deadline.due_tick = _NEVER
            deadline.on_due(self._loop.time())
