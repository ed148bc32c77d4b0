"""How old a message is, although the wall clock may jump. Pure.

An outbox has a time of its own, in milliseconds. This time starts anywhere and never goes back.
While a process runs, the outbox's time follows the time since boot, which no operator, GPS or NTP
can set. It does so too between two openings of the file within one boot. Across a reboot only the
wall clock is left. The difference of two wall clock readings counts if the clock went forward and
neither reading is older than this code; otherwise the time while the device was off counts as
nothing. So a message can look too young, and is then kept, and looked up once more than needed. A
device that wakes up in 1970 drops nothing.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

CREDIBLE_MS: Final = 1_735_689_600_000
"""2025-01-01T00:00:00Z. A wall clock that shows an earlier time was never set."""


class Uptime(NamedTuple):
    """Time since a boot; `boot` names the boot."""

    boot: str
    ms: int


class Stamp(NamedTuple):
    """A moment: in the outbox's own time, since boot, and on the wall clock."""

    outbox_ms: int
    boot: str
    uptime_ms: int
    wall_ms: int


def stamp_now(last: Stamp, now: Uptime, wall_ms: int) -> Stamp:
    """The present moment, given an earlier one. The outbox's time never goes back."""
    if now.boot == last.boot:
        passed_ms = now.ms - last.uptime_ms
    elif min(last.wall_ms, wall_ms) >= CREDIBLE_MS:
        passed_ms = wall_ms - last.wall_ms
    else:
        passed_ms = 0
    return Stamp(last.outbox_ms + max(0, passed_ms), now.boot, now.ms, wall_ms)


class OutboxTime:
    """The time of one outbox. From the opening on it passes, whatever the wall clock says."""

    def __init__(
        self, last: Stamp, uptime: Callable[[], Uptime], wall: Callable[[], float]
    ) -> None:
        """
        Args:
            last: the latest moment that the outbox file knows.
            uptime: reads the time since boot.
            wall: reads Unix time, in seconds.
        """
        self._uptime = uptime
        self._wall = wall
        self._last = last
        self._opened = stamp_now(last, uptime(), int(wall() * 1000))

    def now(self) -> Stamp:
        """The present moment. A wall clock that is set after the opening can still tell how long
        the device was off.
        """
        uptime = self._uptime()
        stamp = stamp_now(self._last, uptime, int(self._wall() * 1000))
        at_least_ms = self._opened.outbox_ms + uptime.ms - self._opened.uptime_ms
        return stamp if stamp.outbox_ms >= at_least_ms else stamp._replace(outbox_ms=at_least_ms)

    def saved(self, stamp: Stamp) -> None:
        """`stamp` is in the file: what follows is counted from it."""
        self._last = stamp
