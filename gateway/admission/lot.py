"""The parking lot: connections that wait in the handshake for a slot that is near.

The lot is bounded. It is ordered by rank, then by slot. A waiter leaves it in one of three ways: it
is taken, it reports that it left, or the lot is cleared. The lot never checks whether a waiter is
still there, so it cannot drop one without an answer.
"""

import enum
import heapq
import itertools
import math
from typing import Final, Generic, TypeVar


class Rank(enum.IntEnum):
    """The order in which waiters leave the lot."""

    PRIORITY = 0
    TICKET = 1
    WALK_IN = 2


# For what runs at each knock: Python 3.11 takes longer to find a member of an enum than to call a
# function (https://github.com/python/cpython/issues/93910).
PRIORITY: Final = Rank.PRIORITY
TICKET: Final = Rank.TICKET
WALK_IN: Final = Rank.WALK_IN

W = TypeVar("W")


class Parked(Generic[W]):
    """One place in the lot. Its waiter is admitted from `due` on, and at `latest` for sure."""

    __slots__ = ("cost", "due", "gone", "holder", "latest", "rank", "waiter")

    def __init__(
        self, waiter: W, rank: Rank, due: float, latest: float, cost: float, holder: bytes
    ) -> None:
        self.waiter = waiter
        self.rank = rank
        self.due = due
        self.latest = latest
        self.cost = cost
        self.holder = holder
        """The hash of tenant and device, as in tickets."""
        self.gone = False
        """The waiter left. The entry is removed when it comes to the front of the heap."""


class ParkingLot(Generic[W]):
    """The places of all waiters. Times in seconds."""

    def __init__(self, *, places: int) -> None:
        self._places = places
        self._heaps: list[list[tuple[float, int, Parked[W]]]] = [[] for _ in Rank]
        self._order = itertools.count()
        self._by_waiter: dict[W, Parked[W]] = {}
        self._by_holder: dict[bytes, Parked[W]] = {}
        self.place_of = self._by_holder.get
        """The place of a device, or None."""

    def __len__(self) -> int:
        return len(self._by_waiter)

    def room(self, rank: Rank) -> bool:
        """Whether one more of `rank` may park. Walk-ins have half the lot, promises all of it."""
        places = self._places // 2 if rank is WALK_IN else self._places
        return len(self._by_waiter) < places

    def park(self, place: Parked[W]) -> None:
        heapq.heappush(self._heaps[place.rank], (place.due, next(self._order), place))
        self._by_waiter[place.waiter] = self._by_holder[place.holder] = place

    def replace(self, place: Parked[W], waiter: W) -> W:
        """`waiter` waits at `place` from now on.

        Returns:
            The waiter that it replaces.
        """
        older = place.waiter
        del self._by_waiter[older]
        place.waiter = waiter
        self._by_waiter[waiter] = place
        return older

    def leave(self, waiter: W) -> Parked[W] | None:
        """A waiter left. Its place is free; the entry in the heap is removed later.

        Returns:
            The place, or None if `waiter` has none.
        """
        place = self._by_waiter.pop(waiter, None)
        if place is not None:
            place.gone = True
            del self._by_holder[place.holder]
        return place

    def front(self, now: float) -> Parked[W] | None:
        """The next place whose slot has come, or None."""
        if not self._by_waiter:
            return None
        for heap in self._heaps:
            place = _first(heap)
            if place is not None and place.due <= now:
                return place
        return None

    def due(self, now: float, most: float) -> float:
        """The cost of the places whose slot has come. What is beyond `most` is not counted."""
        cost = 0.0
        for heap in self._heaps:
            # Below an entry that is not due, no entry is due.
            ahead = [0] if heap else []
            while ahead and cost < most:
                index = ahead.pop()
                due, _order, place = heap[index]
                if due <= now:
                    cost += 0.0 if place.gone else place.cost
                    ahead += range(2 * index + 1, min(2 * index + 3, len(heap)))
        return cost

    def overdue(self, now: float) -> Parked[W] | None:
        """A place whose waiter has waited as long as it may, or None."""
        if not self._by_waiter:
            return None
        for heap in self._heaps:
            place = _first(heap)
            if place is not None and place.latest <= now:
                return place
        return None

    def next_due(self) -> float | None:
        """The earliest slot of all places, or None."""
        if not self._by_waiter:
            return None
        dues = [place.due for heap in self._heaps if (place := _first(heap)) is not None]
        return min(dues, default=None)

    def next_latest(self) -> float:
        """When the first waiter will have waited as long as it may; infinity without waiters."""
        firsts = [place.latest for heap in self._heaps if (place := _first(heap)) is not None]
        return min(firsts, default=math.inf)

    def take(self, place: Parked[W]) -> W:
        """Remove a place that `front` or `overdue` has just returned.

        Returns:
            Its waiter.
        """
        _due, _order, first = heapq.heappop(self._heaps[place.rank])
        assert first is place
        del self._by_waiter[place.waiter]
        del self._by_holder[place.holder]
        return place.waiter

    def clear(self) -> list[Parked[W]]:
        """Remove all waiters.

        Returns:
            Their places, by rank and slot.
        """
        places = [
            place
            for heap in self._heaps
            for _due, _order, place in sorted(heap, key=lambda entry: entry[:2])
            if not place.gone
        ]
        for heap in self._heaps:
            heap.clear()
        self._by_waiter.clear()
        self._by_holder.clear()
        return places


def _first(heap: list[tuple[float, int, Parked[W]]]) -> Parked[W] | None:
    while heap and heap[0][2].gone:
        heapq.heappop(heap)
    return heap[0][2] if heap else None
