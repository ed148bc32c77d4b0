"""The parking lot: connections that wait in the handshake for a slot a moment away.

Bounded. Ordered by rank, then by the time each was promised. A waiter leaves the lot in one of
three ways: it is taken, it says that it left, or the lot is cleared. The lot never asks a waiter
whether it is still there, so nobody can be dropped from it unanswered.
"""

import enum
import heapq
import itertools
import math
from typing import Generic, TypeVar


class Rank(enum.IntEnum):
    """Who goes first."""

    PRIORITY = 0
    TICKET = 1
    WALK_IN = 2


W = TypeVar("W")


class Parked(Generic[W]):
    """One place in the lot. From `due` it may go, at `latest` it does, come what may."""

    __slots__ = ("cost", "due", "gone", "holder", "latest", "rank", "waiter")

    def __init__(
        self, waiter: W, rank: Rank, due: float, latest: float, cost: float, holder: bytes = b""
    ) -> None:
        self.waiter = waiter
        self.rank = rank
        self.due = due
        self.latest = latest
        self.cost = cost
        self.holder = holder
        """The device, as tickets name it."""
        self.gone = False
        """It was given up; its entry is swept when it comes to the front."""


class ParkingLot(Generic[W]):
    """Who is parked. Times in seconds."""

    def __init__(self, *, places: int) -> None:
        self._places = places
        self._heaps: list[list[tuple[float, int, Parked[W]]]] = [[] for _ in Rank]
        self._order = itertools.count()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def room(self, rank: Rank) -> bool:
        """Whether one more of `rank` may park: walk-ins have half the lot, promises all of it."""
        return self._count < (self._places // 2 if rank is Rank.WALK_IN else self._places)

    def park(self, place: Parked[W]) -> None:
        heapq.heappush(self._heaps[place.rank], (place.due, next(self._order), place))
        self._count += 1

    def leave(self, place: Parked[W]) -> None:
        """The waiter of `place` went away; its place is free, its entry is swept later."""
        if not place.gone:
            place.gone = True
            self._count -= 1

    def front(self, now: float) -> Parked[W] | None:
        """Who goes next of those whose time has come."""
        if not self._count:
            return None
        for heap in self._heaps:
            place = _first(heap)
            if place is not None and place.due <= now:
                return place
        return None

    def overdue(self, now: float) -> Parked[W] | None:
        """Who has waited as long as anybody may."""
        for heap in self._heaps:
            place = _first(heap)
            if place is not None and place.latest <= now:
                return place
        return None

    def next_due(self) -> float | None:
        """When the next of them can go, as far as its slot is concerned."""
        dues = [place.due for heap in self._heaps if (place := _first(heap)) is not None]
        return min(dues, default=None)

    def next_latest(self) -> float:
        """When somebody has waited as long as anybody may; infinity if nobody is there."""
        firsts = [place.latest for heap in self._heaps if (place := _first(heap)) is not None]
        return min(firsts, default=math.inf)

    def take(self, place: Parked[W]) -> W:
        """Remove the first of its rank, as `front` or `overdue` returned it."""
        _due, _order, first = heapq.heappop(self._heaps[place.rank])
        assert first is place
        self._count -= 1
        return place.waiter

    def clear(self) -> list[Parked[W]]:
        """Remove everybody.

        Returns:
            Their places, by rank and time.
        """
        places = [
            place
            for heap in self._heaps
            for _due, _order, place in sorted(heap, key=lambda entry: entry[:2])
            if not place.gone
        ]
        for heap in self._heaps:
            heap.clear()
        self._count = 0
        return places


def _first(heap: list[tuple[float, int, Parked[W]]]) -> Parked[W] | None:
    while heap and heap[0][2].gone:
        heapq.heappop(heap)
    return heap[0][2] if heap else None
