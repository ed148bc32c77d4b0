"""The herd index: how badly arrivals bunch. Peak over mean of a minute, in tenths of a second.

Independent arrivals stay near 1 when they are many; a fleet that comes back in step shows hundreds.
"""

from collections import deque
from typing import Final

_BIN_S: Final = 0.1
_BINS: Final = 600


class HerdIndex:
    """Arrivals of the last minute."""

    __slots__ = ("_bins", "_current", "_total")

    def __init__(self) -> None:
        self._bins: deque[tuple[int, int]] = deque()
        self._current = (0, 0)
        self._total = 0

    def arrived(self, now: float) -> None:
        number, count = self._current
        here = int(now / _BIN_S)
        self._total += 1
        if here == number:
            self._current = (number, count + 1)
            return
        if count:
            self._bins.append(self._current)
        self._current = (here, 1)
        self._forget(here)

    def value(self, now: float) -> float:
        """Peak over mean, 0 if nobody knocked."""
        self._forget(int(now / _BIN_S))
        counts = [count for _number, count in (*self._bins, self._current)]
        if not self._total:
            return 0.0
        return max(counts) * _BINS / self._total

    def _forget(self, here: int) -> None:
        while self._bins and self._bins[0][0] <= here - _BINS:
            self._total -= self._bins.popleft()[1]
        if self._current[1] and self._current[0] <= here - _BINS:
            self._total -= self._current[1]
            self._current = (here, 0)
