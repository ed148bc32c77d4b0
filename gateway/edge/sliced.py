"""Work that can wait: it gets a slice of each turn of the loop, so that other work gets the rest.

The longer a turn of the loop takes, the more work has arrived by its end. So thousands of
connections that come or go at once are dealt with for some hundred microseconds at a time. Between
two slices the loop polls, and the messages of other devices pass.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_SLICE_MAX_S: Final = 0.005


class Sliced(Generic[T]):
    """Items in order of arrival. Each is dealt with once, and some are each turn."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        slice_s: float,
        deal_with: Callable[[T], object],
        *,
        later_s: float = 0.0,
        share: float = 0.0,
    ) -> None:
        """
        Args:
            loop: whose turns are sliced.
            slice_s: how long a turn goes on. An item that was begun is finished.
            deal_with: called with each item.
            later_s: about how long the loop works for an item after its slice.
            share: of the loop's time that these items may have where turns are long: a slice is at
                least that share of the time since the last one, up to 5 ms.
        """
        self._loop = loop
        self._slice_s = slice_s
        self._deal_with = deal_with
        self._later_s = later_s
        self._share = share
        self._sliced_at = 0.0
        self._items: deque[T] = deque()
        self._turn: asyncio.Handle | None = None

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: T) -> None:
        self._items.append(item)
        if self._turn is None:
            self._sliced_at = perf_counter()
            self._turn = self._loop.call_soon(self._take_turn)

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
        return left

    def _take_turn(self) -> None:
        self._turn = None
        items, now, later_s = self._items, perf_counter(), self._later_s
        slice_s = min(_SLICE_MAX_S, self._share * (now - self._sliced_at))
        end = now + max(self._slice_s, slice_s)
        try:
            for _ in range(len(items)):
                self._deal_with(items.popleft())
                end -= later_s
                if perf_counter() > end:
                    break
        finally:  # an error of one item must not strand the others
            if items and self._turn is None:
                self._sliced_at = perf_counter()
                self._turn = self._loop.call_soon(self._take_turn)
