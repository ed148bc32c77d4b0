"""The herd index: the peak of arrivals over their mean, in tenths of a second of the last minute.

Many independent arrivals have an index near 1. A fleet that comes back all at once has hundreds.
"""

from collections import deque
from typing import Final

_BIN_S: Final = 0.1
_BINS: Final = 600


class HerdIndex:
    """Arrivals of the last minute."""

    __slots__ = ("_bins", "_count", "_number", "_total")

    def __init__(self) -> None:
        self._bins: deque[tuple[int, int]] = deque()
        self._number = 0
        self._count = 0
        self._total = 0

    def arrived(self, now: float) -> None:
        here = int(now / _BIN_S)
        self._total += 1
        if here == self._number:
            self._count += 1
            return
        if self._count:
            self._bins.append((self._number, self._count))
        self._number, self._count = here, 1
        self._forget(here)

    def value(self, now: float) -> float:
        """Peak over mean; 0 if there was no arrival."""
        self._forget(int(now / _BIN_S))
        if not self._total:
            return 0.0
        peak = max([self._count, *(count for _number, count in self._bins)])
        return peak * _BINS / self._total

    def _forget(self, here: int) -> None:
        while self._bins and self._bins[0][0] <= here - _BINS:
            self._total -= self._bins.popleft()[1]
        if self._count and self._number <= here - _BINS:
            self._total -= self._count
            self._number, self._count = here, 0
