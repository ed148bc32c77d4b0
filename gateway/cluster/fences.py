"""Fences order the connections of a device, on all nodes: the highest is the newest. Pure."""

from collections.abc import Callable
from typing import Final, Protocol

from gateway.admission.clock import TOLERANCE_S

_MICROSECONDS: Final = 1_000_000
_AGREE_US: Final = int(TOLERANCE_S * _MICROSECONDS)
"""Clocks that differ by no more than this agree."""


class FencePage(Protocol):
    """The fences that the workers of one gateway have given last."""

    def highest_fence(self) -> int:
        """The highest of them."""

    def write_fence(self, fence: int) -> None:
        """This worker has given this fence."""


class _NoPage:
    """A node that shares its fences with no other process."""

    def highest_fence(self) -> int:
        return 0

    def write_fence(self, fence: int) -> None:
        pass


class Fences:
    """Makes fences: fleet time in microseconds, each higher than the last.

    The workers of a gateway share a page of memory, so each fence is higher than the last one that
    any of them gave, although their clocks differ by a little.
    """

    def __init__(self, clock: Callable[[], float], page: FencePage | None = None) -> None:
        """
        Args:
            clock: fleet time, seconds.
            page: shared with the other workers; None for a process without workers.
        """
        self._clock = clock
        self._page: FencePage = page or _NoPage()
        self._last = 0

    def ahead(self, by: int) -> int:
        """A fence that is so much higher than the last one, and than the time."""
        return max(self._last, self._now()) + by

    def at_least(self, fence: int) -> None:
        """Every fence from now on is higher than this one, whatever the clock says."""
        self._set(max(self._last, fence))

    def next(self) -> int:
        """The fence of a session that begins now."""
        now, last, highest = self._now(), self._last, self._page.highest_fence()
        if last < highest <= now + _AGREE_US:  # a higher one is of a clock that is in dispute
            last = highest
        self._set(max(last + 1, now))
        return self._last

    def moved(self, fence: int, step_s: float) -> int:
        """The value of an earlier fence after fleet time has stepped by `step_s`."""
        return fence + round(step_s * _MICROSECONDS)

    def step(self, step_s: float) -> None:
        """Fleet time has stepped: the next fences continue from there."""
        self._set(self.moved(self._last, step_s))

    def _now(self) -> int:
        return int(self._clock() * _MICROSECONDS)

    def _set(self, fence: int) -> None:
        self._last = fence
        self._page.write_fence(fence)
