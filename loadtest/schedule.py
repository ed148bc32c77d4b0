"""What happens next in virtual time, of millions of things that will."""

import heapq
import itertools
import math
from typing import Final, Generic, TypeVar

_MOMENTS_PER_S: Final = 16

T = TypeVar("T")


class Schedule(Generic[T]):
    """Items by the time at which they are due.

    A heap of millions would cost more than what is done about them, so only the items of one moment
    are in a heap.
    """

    __slots__ = ("_later", "_moment", "_moments", "_order", "_soon", "next_at")

    def __init__(self) -> None:
        self._moment = 0
        self._soon: list[tuple[float, int, T]] = []
        """A heap of the items of this moment, and of earlier ones. Empty if nothing waits."""
        self._later: dict[int, list[tuple[float, int, T]]] = {}
        self._moments: list[int] = []
        """A heap of the moments in `_later`."""
        self._order = itertools.count()
        self.next_at = math.inf
        """When the first one is due; infinity if there is none."""

    def add(self, at: float, item: T) -> None:
        moment = int(at * _MOMENTS_PER_S)
        if not self._soon:
            self._moment = moment
        entry = at, next(self._order), item
        if moment <= self._moment:
            heapq.heappush(self._soon, entry)
            self.next_at = self._soon[0][0]
        elif (entries := self._later.get(moment)) is not None:
            entries.append(entry)
        else:
            self._later[moment] = [entry]
            heapq.heappush(self._moments, moment)

    def pop(self) -> T:
        """Take out the item that is due first."""
        item = heapq.heappop(self._soon)[2]
        if not self._soon and self._later:
            self._moment = heapq.heappop(self._moments)
            self._soon = self._later.pop(self._moment)
            heapq.heapify(self._soon)
        self.next_at = self._soon[0][0] if self._soon else math.inf
        return item
