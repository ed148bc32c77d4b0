"""The pace of a replay: events follow each other as they were stored, or so many times faster."""

from collections.abc import Callable
from typing import Final

_NS: Final = 1_000_000_000


class Pace:
    """When the events of one replay are due."""

    def __init__(self, speed: float | None, clock: Callable[[], float]) -> None:
        """
        Args:
            speed: 1 is the pace at which the events were stored; None is as fast as possible.
            clock: monotonic seconds.
        """
        self._speed = speed
        self._clock = clock
        self._began_at = 0.0
        self._first_ns: int | None = None

    def wait_s(self, stored_ns: int) -> float:
        """How long to wait before an event that was stored then, 0 if it is due.

        The first event is due at once. What took longer than planned is made up for, so the replay
        as a whole keeps its pace.
        """
        if self._speed is None:
            return 0.0
        now = self._clock()
        if self._first_ns is None:
            self._began_at, self._first_ns = now, stored_ns
        due_at = self._began_at + (stored_ns - self._first_ns) / _NS / self._speed
        return max(0.0, due_at - now)
