"""A hashed timing wheel (Varghese and Lauck, 1987): one loop timer for all connections' deadlines.

A timer handle per connection would cost more memory than the rest of an idle keepalive. Deadlines
here are coarse (a tick) and late rather than early.
"""

import asyncio
from typing import Final, Protocol

_NEVER: Final = -1


class Deadline(Protocol):
    """Something with one deadline at a time."""

    due_tick: int
    """Owned by the wheel: the tick it will fire at, -1 for none."""

    def on_due(self, now: float) -> None:
        """The deadline passed. `now` is loop time in seconds."""


class TimingWheel:
    """Deadlines by tick. Times are loop time in seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, tick_s: float = 0.1) -> None:
        self._loop = loop
        self._tick_s = tick_s
        self._buckets: dict[int, list[Deadline]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._last_tick = int(loop.time() / tick_s)

    def schedule(self, deadline: Deadline, due_at: float) -> None:
        """Have `deadline` fire at `due_at`, instead of when it would have."""
        tick = max(int(due_at / self._tick_s) + 1, self._last_tick + 1)
        if tick == deadline.due_tick:
            return
        deadline.due_tick = tick
        self._buckets.setdefault(tick, []).append(deadline)
        if self._timer is None:
            self._timer = self._loop.call_later(self._tick_s, self._turn)

    def cancel(self, deadline: Deadline) -> None:
        """Have it not fire. Its place in the bucket is swept when the bucket's time comes."""
        deadline.due_tick = _NEVER

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._buckets.clear()

    def _turn(self) -> None:
        now = self._loop.time()
        current = int(now / self._tick_s)
        # After a stall of the loop, every tick that was missed is due.
        for tick in range(self._last_tick + 1, current + 1):
            self._last_tick = tick
            for deadline in self._buckets.pop(tick, ()):
                if deadline.due_tick == tick:
                    deadline.due_tick = _NEVER
                    deadline.on_due(now)
        self._timer = self._loop.call_later(self._tick_s, self._turn) if self._buckets else None
