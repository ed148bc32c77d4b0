"""The parking lot: connections that wait in the handshake for a slot a moment away.

Bounded. Ordered by rank, then by the time each was promised. Whoever parks may leave before its
turn (the device hung up); its place is swept when it comes to the front.
"""

import enum
import heapq
import itertools
import math
from typing import Generic, Protocol, TypeVar


class Rank(enum.IntEnum):
    """Who goes first."""

    PRIORITY = 0
    TICKET = 1
    WALK_IN = 2


class Waiter(Protocol):
    """A knock that waits for its outcome."""

    @property
    def waiting(self) -> bool:
        """Whether the device is still there."""


W = TypeVar("W", bound=Waiter)


class Parked(Generic[W]):
    """One place in the lot. From `due` it may go, at `latest` it does, come what may."""

    __slots__ = ("cost", "due", "latest", "rank", "waiter")

    def __init__(self, waiter: W, rank: Rank, due: float, latest: float, cost: float) -> None:
        self.waiter = waiter
        self.rank = rank
        self.due = due
        self.latest = latest
        self.cost = cost


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

    def left(self) -> None:
        """A waiter went away; its place is free, its entry is swept later."""
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
        """Remove the first of its rank."""
        _due, _order, first = heapq.heappop(self._heaps[place.rank])
        assert first is place
        self._count -= 1
        return place.waiter

    def clear(self) -> list[W]:
        """Everybody out."""
        waiters = [
            place.waiter
            for heap in self._heaps
            for _due, _order, place in sorted(heap, key=lambda entry: entry[:2])
            if place.waiter.waiting
        ]
        for heap in self._heaps:
            heap.clear()
        self._count = 0
        return waiters


def _first(heap: list[tuple[float, int, Parked[W]]]) -> Parked[W] | None:
    while heap and not heap[0][2].waiter.waiting:
        heapq.heappop(heap)
    return heap[0][2] if heap else None
