"""Work that can wait: it gets a slice of each turn of the loop, so that other work gets the rest.

The longer a turn of the loop takes, the more work has arrived by its end. So thousands of
connections that come or go at once are dealt with for some hundred microseconds at a time. Between
two slices the loop polls, and the messages of other devices pass.

Work that nobody waits for gets a share of the time, too: it rests between its slices. A loop that
went from slice to slice would take a whole core for as long as there are items, and the server that
stores the messages may need that core. While items come as a flood, none is dealt with: to take
them in costs the loop enough.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_SLICE_MAX_S: Final = 0.001
"""The longest slice after a long turn, unless slices are longer by their setting."""
_MANY: Final = 64
"""Other work gets its turn after so many items that have come. Ends of connections come in about
10 us each, and libuv reads from thousands of sockets before it runs what is scheduled."""
_FLOOD: Final = 50
"""Items are a flood if more than so many come between two slices."""
_FLOOD_REST_S: Final = 0.01
_FLOOD_RESTS_MAX: Final = 100
"""A second. Then items are dealt with in the flood too, or what waits could grow for ever."""


class Sliced(Generic[T]):
    """Items in order of arrival. Each is dealt with once, some of them in each slice."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        slice_s: float,
        deal_with: Callable[[T], object],
        *,
        later_s: float = 0.0,
        share: float = 1.0,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            loop: whose turns are sliced.
            slice_s: how long a turn goes on. An item that was begun is finished.
            deal_with: called with each item.
            later_s: about how long the loop works for an item after its slice.
            share: of the time that these items may have, above 0. At 1, there is a slice in each
                turn of the loop while there are items. Below 1, slices are so far apart, and where
                turns are long, a slice grows to that share of the time since the last one, up to
                1 ms. In a flood, the first slice comes when the flood is over.
            between: called after each slice, and after each 64 items that come. It does the work
                that must not wait until the loop polls again.
        """
        self._loop = loop
        self._slice_s = slice_s
        self._deal_with = deal_with
        self._later_s = later_s
        self._share = share
        self._between = between
        self._sliced_at = 0.0
        self._due_at = 0.0
        self._flood_rests = 0
        self._left = 0
        """Items that were there after the last slice."""
        self._items: deque[T] = deque()
        self._turn: asyncio.Handle | None = None

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: T) -> None:
        items = self._items
        items.append(item)
        if self._turn is None:
            self._sliced_at = perf_counter()
            self._schedule()
        elif not len(items) % _MANY:
            self._between()

    def clear(self) -> list[T]:
        """Take out every item without dealing with it.

        Returns:
            The items.
        """
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        left = list(self._items)
        self._items.clear()
        self._left = 0
        return left

    def hurry(self) -> None:
        """Rest no longer: there is no other work to leave time for."""
        self._share = 1.0
        if self._turn is not None:
            self._turn.cancel()
            self._turn = self._loop.call_soon(self._take_turn)

    def _schedule(self) -> None:
        rest_s = 0.0 if self._share >= 1.0 else self._due_at - perf_counter()
        if rest_s > 0:
            self._turn = self._loop.call_later(rest_s, self._take_turn)
        else:
            self._turn = self._loop.call_soon(self._take_turn)

    def _is_flood(self) -> bool:
        """Whether items come as a flood, and none is to be dealt with now."""
        came, self._left = len(self._items) - self._left, len(self._items)
        if came <= _FLOOD:
            self._flood_rests = 0
        elif self._flood_rests < _FLOOD_RESTS_MAX:
            self._flood_rests += 1
            return True
        return False

    def _take_turn(self) -> None:
        if self._share < 1.0 and self._is_flood():
            self._due_at = perf_counter() + _FLOOD_REST_S
            self._schedule()
            self._between()
            return
        turn = self._turn  # until its end, so that what an item adds waits for the next slice
        items, began, share, later_s = self._items, perf_counter(), self._share, self._later_s
        slice_s = self._slice_s
        if share < 1.0:
            slice_s = max(slice_s, min(_SLICE_MAX_S, share * (began - self._sliced_at)))
        before = now = began
        work_s = 0.0
        try:
            for _ in range(len(items)):
                self._deal_with(items.popleft())
                now = perf_counter()
                work_s += now - before + later_s
                before = now
                if work_s > slice_s:
                    break
        finally:  # an error of one item must not strand the others
            self._sliced_at = now
            self._left = len(items)
            self._due_at = began + work_s / share
            if self._turn is turn:
                self._turn = None
                if items:
                    self._schedule()
        self._between()
