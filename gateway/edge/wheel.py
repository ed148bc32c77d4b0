"""A hashed timing wheel (Varghese and Lauck, 1987): one loop timer for all connections' deadlines.

A timer handle a connection would cost more memory than the rest of its keepalive. Deadlines here
have the precision of a tick, and fire late rather than early. Those of one tick fire in slices:
with 10,000 connections a tick has 60 pings, which would keep every ack waiting for 4 ms.
"""

import asyncio
from typing import Final, Protocol

from gateway.edge.sliced import Sliced

_NEVER: Final = -1
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

    def __init__(self, loop: asyncio.AbstractEventLoop, *, tick_s: float = 0.1) -> None:
        self._loop = loop
        self._tick_s = tick_s
        self._buckets: dict[int, set[Deadline]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._last_tick = int(loop.time() / tick_s)
        self._due: Sliced[tuple[int, Deadline]] = Sliced(loop, _SLICE_S, self._fire)

    def schedule(self, deadline: Deadline, due_at: float) -> None:
        """Let `deadline` fire at `due_at`, and no longer at the moment set before."""
        tick = max(int(due_at / self._tick_s) + 1, self._last_tick + 1)
        if tick == deadline.due_tick:
            return
        self.cancel(deadline)
        deadline.due_tick = tick
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = set()
        bucket.add(deadline)
        if self._timer is None:
            self._timer = self._loop.call_later(self._tick_s, self._turn)

    def cancel(self, deadline: Deadline) -> None:
        """Do not let `deadline` fire, and let go of it: a closed connection is freed at once."""
        bucket = self._buckets.get(deadline.due_tick)
        if bucket is not None:
            bucket.discard(deadline)
        deadline.due_tick = _NEVER

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._buckets.clear()
        self._due.clear()

    def _turn(self) -> None:
        current = int(self._loop.time() / self._tick_s)
        # After a stall of the loop, every tick that was missed is due.
        for tick in range(self._last_tick + 1, current + 1):
            self._last_tick = tick
            for deadline in self._buckets.pop(tick, ()):
                self._due.add((tick, deadline))
        self._timer = self._loop.call_later(self._tick_s, self._turn) if self._buckets else None

    def _fire(self, due: tuple[int, Deadline]) -> None:
        tick, deadline = due
        if deadline.due_tick == tick:  # else it was cancelled or moved while it waited
            deadline.due_tick = _NEVER
            deadline.on_due(self._loop.time())
