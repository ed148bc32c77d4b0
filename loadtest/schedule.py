"""What happens next in virtual time, of millions of things that will."""

import heapq
import math
import sys
from array import array
from bisect import insort_left
from collections.abc import Iterable, Iterator
from itertools import chain
from operator import attrgetter
from typing import Final, Generic, Protocol, TypeVar

_MOMENTS_PER_S: Final = 16.0
_NEVER: Final = sys.maxsize
"""A moment after all others."""


class Due(Protocol):
    """An item of a schedule."""

    at: float
    """When it is due, in seconds. It does not change while the item is in a schedule."""


D = TypeVar("D", bound=Due)
_AT: Final = attrgetter("at")


def _backwards(item: Due) -> float:
    return -item.at


class Schedule(Generic[D]):
    """Items by the time at which they are due.

    A heap of millions would cost more than what is done about them. So the items of each moment are
    in a list of their own, which is sorted when its moment comes.
    """

    __slots__ = ("_later", "_moment", "_moments", "_soon", "next_at")

    def __init__(self) -> None:
        self._moment = _NEVER
        """The moment of `_soon`. No item is due in an earlier one."""
        self._soon: list[D] = []
        """The items of this moment, the first one last. Empty if nothing waits."""
        self._later: dict[int, list[D]] = {}
        """In the order in which they were added."""
        self._moments: list[int] = []
        """A heap of the moments in `_later`."""
        self.next_at = math.inf
        """When the first one is due; infinity if there is none."""

    def add(self, item: D) -> None:
        moment = int(item.at * _MOMENTS_PER_S)
        if moment <= self._moment:
            self._add_soon(moment, item)
        elif (items := self._later.get(moment)) is not None:
            items.append(item)
        else:
            self._later[moment] = [item]
            heapq.heappush(self._moments, moment)

    def pop(self) -> D:
        """Take out the item that is due first. Of two at one time, it is the one added first."""
        soon = self._soon
        item = soon.pop()
        if soon:
            self.next_at = soon[-1].at
        else:
            self._turn()
        return item

    def _add_soon(self, moment: int, item: D) -> None:
        if moment < self._moment:
            self._put_back()
            self._moment, self._soon = moment, [item]
        else:
            insort_left(self._soon, item, key=_backwards)
        self.next_at = self._soon[-1].at

    def _put_back(self) -> None:
        """Another moment is to come before that of `_soon`."""
        if self._soon:
            self._soon.reverse()
            self._later[self._moment] = self._soon
            heapq.heappush(self._moments, self._moment)

    def _turn(self) -> None:
        """Go on to the next moment in which an item is due."""
        if not self._moments:
            self._moment, self.next_at = _NEVER, math.inf
            return
        self._moment = heapq.heappop(self._moments)
        self._soon = self._later.pop(self._moment)
        # Not `reverse=True`: that would put the first of two equals first, and the last is taken.
        self._soon.sort(key=_AT)
        self._soon.reverse()
        self.next_at = self._soon[-1].at


def in_order(times: Iterable[float]) -> Iterator[float]:
    """These times, the earliest first.

    To sort millions at once would cost more: each comparison would read two floats from memory that
    no cache holds. For the same reason they are in arrays, not lists, until their moment comes.
    """
    moments: dict[int, array[float]] = {}
    for time in times:
        moment = int(time * _MOMENTS_PER_S)
        if (found := moments.get(moment)) is None:
            found = moments[moment] = array("d")
        found.append(time)

    def take(moment: int) -> list[float]:
        return sorted(moments.pop(moment))

    return chain.from_iterable(map(take, sorted(moments)))
