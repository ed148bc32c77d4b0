"""Fences: which of a device's connections is the newest, on whatever node they are. Pure."""

from collections.abc import Callable
from typing import Final

_MICROSECONDS: Final = 1_000_000


class Fences:
    """Gives out fences: fleet time in microseconds, and never the same or a lower one twice."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """
        Args:
            clock: fleet time, seconds.
        """
        self._clock = clock
        self._last = 0

    def next(self) -> int:
        """The fence of a session that begins now."""
        self._last = max(self._last + 1, int(self._clock() * _MICROSECONDS))
        return self._last

    def moved(self, fence: int, step_s: float) -> int:
        """What an earlier fence is after fleet time made a step of `step_s`."""
        return fence + round(step_s * _MICROSECONDS)

    def step(self, step_s: float) -> None:
        """Fleet time made a step: fences go on from there."""
        self._last = self.moved(self._last, step_s)
