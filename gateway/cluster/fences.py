"""Fences order the connections of a device, on all nodes: the highest is the newest. Pure."""

from collections.abc import Callable
from typing import Final

_MICROSECONDS: Final = 1_000_000


class Fences:
    """Makes fences: fleet time in microseconds, each higher than the last."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """
        Args:
            clock: fleet time, seconds.
        """
        self._clock = clock
        self._last = 0

    def ahead(self, by: int) -> int:
        """A fence that is so much higher than the last one, and than the time."""
        return max(self._last, int(self._clock() * _MICROSECONDS)) + by

    def at_least(self, fence: int) -> None:
        """Every fence from now on is higher than this one, whatever the clock says."""
        self._last = max(self._last, fence)

    def next(self) -> int:
        """The fence of a session that begins now."""
        self._last = max(self._last + 1, int(self._clock() * _MICROSECONDS))
        return self._last

    def moved(self, fence: int, step_s: float) -> int:
        """The value of an earlier fence after fleet time has stepped by `step_s`."""
        return fence + round(step_s * _MICROSECONDS)

    def step(self, step_s: float) -> None:
        """Fleet time has stepped: the next fences continue from there."""
        self._last = self.moved(self._last, step_s)
