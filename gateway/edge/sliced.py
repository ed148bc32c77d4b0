"""Work that can wait: it gets a slice of each turn of the loop, so that other work gets the rest.

The longer a turn of the loop takes, the more work has arrived by its end. So thousands of
connections that come or go at once are dealt with for some hundred microseconds at a time. Between
two slices the loop polls, and the messages of other devices pass.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Generic, TypeVar

T = TypeVar("T")


class Sliced(Generic[T]):
    """Items in order of arrival. Each is dealt with once, and some are each turn."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, slice_s: float, deal_with: Callable[[T], None]
    ) -> None:
        """
        Args:
            loop: whose turns are sliced.
            slice_s: how long a turn goes on. An item that was begun is finished.
            deal_with: called with each item.
        """
        self._loop = loop
        self._slice_s = slice_s
        self._deal_with = deal_with
        self._items: deque[T] = deque()
        self._turn: asyncio.Handle | None = None

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: T) -> None:
        self._items.append(item)
        if self._turn is None:
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
        items, end = self._items, perf_counter() + self._slice_s
        while items:
            self._deal_with(items.popleft())
            if perf_counter() > end:
                break
        if items and self._turn is None:
            self._turn = self._loop.call_soon(self._take_turn)
