"""The two clocks of a node, and the way between them.

- *Local time* is the monotonic clock of this process. Everything that measures a rate or a wait
  uses it: limiters, meter, lot, calendar. Nobody can set it.
- *Fleet time* is what nodes promise each other: the slots in tickets and in the shared calendar,
  and the fences of sessions. It is local time plus an offset. Only this offset is ever corrected,
  so a correction moves no limiter.

A node of its own takes its wall clock, once. In a fleet, Redis says the time (`heartbeat.lua`).
Small errors are corrected as they are found. An error of more than a second is a dispute: either
the clock of Redis was set, in which case the nodes outvote it and nobody steps, or the clock of
this node stood still (a suspended machine), in which case it steps once it has been outvoted for a
while.
"""

from collections.abc import Callable
from typing import Final

TOLERANCE_S: Final = 1.0
"""Clocks that differ by no more than this agree."""
_DEAD_BAND_S: Final = 0.02
"""Errors below this are noise. A spent ticket is recognised by its slot, so the offset is kept
still while it is good enough."""


class FleetClock:
    """Call it for fleet time, Unix time in seconds."""

    def __init__(self, wall: Callable[[], float], monotonic: Callable[[], float]) -> None:
        """
        Args:
            wall: Unix time as this machine has it, seconds.
            monotonic: local time, seconds.
        """
        self._wall = wall
        self._monotonic = monotonic
        self._disputed_since: float | None = None
        self.offset_s = wall() - monotonic()
        """Fleet time less local time."""
        self.synced = False
        """Whether the fleet has ever said the time."""

    def __call__(self) -> float:
        return self._monotonic() + self.offset_s

    @property
    def disputed(self) -> bool:
        """Whether Redis names another time than this node, and neither has given way yet."""
        return self._disputed_since is not None

    @property
    def wall_error_s(self) -> float:
        """How far the wall clock of this machine is ahead of fleet time; 0 without a fleet."""
        return self._wall() - self() if self.synced else 0.0

    def steer(self, reference: float, *, uncertainty_s: float, patience_s: float) -> float:
        """Hear the time from Redis.

        Args:
            reference: fleet time now, as Redis has it.
            uncertainty_s: how wrong it may be: half a round trip.
            patience_s: how long a dispute lasts before this node gives way.

        Returns:
            The step taken, seconds; 0 for none or a small correction.
        """
        error_s = reference - self()
        if not self.synced:
            return self._step(error_s)
        if abs(error_s) <= TOLERANCE_S:
            self._disputed_since = None
            excess_s = abs(error_s) - uncertainty_s - _DEAD_BAND_S
            if excess_s > 0:
                self.offset_s += excess_s if error_s > 0 else -excess_s
            return 0.0
        now = self._monotonic()
        if self._disputed_since is None:
            self._disputed_since = now
        if now - self._disputed_since < patience_s:
            return 0.0
        return self._step(error_s)

    def _step(self, error_s: float) -> float:
        self.offset_s += error_s
        self.synced = True
        self._disputed_since = None
        return error_s
