"""The two clocks of a node, and the conversion between them.

- *Local time* is the monotonic clock of this process. Everything that measures a rate or a wait
  uses it: limiters, meter, lot, calendar. It cannot be set.
- *Fleet time* is for what nodes promise each other: the slots in tickets and in the shared
  calendar, and the fences of sessions. It is local time plus an offset. Only the offset is ever
  corrected, so a correction moves no limiter.

A node without a fleet reads its wall clock once. In a fleet, Redis has the time (`heartbeat.lua`).
Small errors are corrected at once. An error of more than a second is a dispute, with two possible
causes. If the clock of Redis was set, the nodes outvote Redis and no node steps. If the clock of
this node stood still (a suspended machine), this node steps after it was outvoted for a while.

A ticket that a node issued with a wrong clock, before it first met its fleet, keeps that error: it
is early or late by as much.
"""

from collections.abc import Callable
from typing import Final

TOLERANCE_S: Final = 1.0
"""Clocks that differ by no more than this agree."""
_DEAD_BAND_S: Final = 0.02
"""Errors below this are ignored. A used ticket is recognised by its slot, so the offset should
change as seldom as possible."""


class FleetClock:
    """Fleet time, Unix time in seconds: call the object."""

    def __init__(self, wall: Callable[[], float], monotonic: Callable[[], float]) -> None:
        """
        Args:
            wall: the wall clock of this machine, Unix time in seconds.
            monotonic: local time, seconds.
        """
        self._wall = wall
        self._monotonic = monotonic
        self._disputed_since: float | None = None
        self.offset_s = wall() - monotonic()
        """Fleet time less local time."""
        self.synced = False
        """Whether Redis has ever told the time."""

    def __call__(self) -> float:
        return self._monotonic() + self.offset_s

    @property
    def disputed(self) -> bool:
        """Whether Redis has another time than this node, and neither has been corrected yet."""
        return self._disputed_since is not None

    @property
    def wall_error_s(self) -> float:
        """How far the wall clock of this machine is ahead of fleet time; 0 without a fleet."""
        return self._wall() - self() if self.synced else 0.0

    def steer(self, reference: float, *, uncertainty_s: float, patience_s: float) -> float:
        """Correct the offset by the time of Redis.

        Args:
            reference: fleet time now, as Redis has it.
            uncertainty_s: how wrong `reference` may be: half a round trip.
            patience_s: how long a dispute lasts before this node takes over the time of Redis.

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
