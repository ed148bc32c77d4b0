"""What was read of a stream and is not taken yet, and the room for more."""

import asyncio
import contextlib
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class ReadBuffer(Generic[T]):
    """Items in order, each with its size in bytes."""

    __slots__ = (
        "_bytes",
        "_enough",
        "_filled",
        "_items",
        "_room_bytes",
        "_room_messages",
        "_since",
        "arrived",
    )

    def __init__(self, *, room_messages: int, room_bytes: int) -> None:
        self._room_messages = room_messages
        self._room_bytes = room_bytes
        self._items: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._since = 0.0
        self._enough = 0
        self._filled = asyncio.Event()
        self.arrived = asyncio.Event()
        """Set while there is something to take."""

    def __len__(self) -> int:
        return len(self._items)

    def room(self, asked: int) -> int:
        """How many messages to ask for, if so many are on their way: at least a quarter of the
        room, or none.
        """
        room = self._room_messages - len(self._items) - asked
        if room < max(1, self._room_messages // 4) or self._bytes >= self._room_bytes:
            return 0
        return room

    def add(self, item: T, size: int) -> None:
        """An item has come."""
        items = self._items
        if not items:
            self._since = asyncio.get_running_loop().time()
            self.arrived.set()
        items.append((item, size))
        self._bytes += size
        if self._enough and (len(items) >= self._enough or self._bytes >= self._room_bytes):
            self._filled.set()

    def take(self, messages_max: int, bytes_max: int) -> list[T]:
        """What has come, in order, at most so much; at least one message if there is any."""
        taken: list[T] = []
        size = 0
        items = self._items
        while items and len(taken) < messages_max:
            item, item_bytes = items[0]
            if taken and size + item_bytes > bytes_max:
                break
            items.popleft()
            taken.append(item)
            size += item_bytes
        self._bytes -= size
        self._since = asyncio.get_running_loop().time()
        if not items:
            self.arrived.clear()
        return taken

    async def wait(self, messages_max: int, bytes_max: int, linger_s: float) -> None:
        """Wait for an item, and then for more, but for no longer than `linger_s` after the first
        has come. Items that came while nobody waited have lingered already.
        """
        loop = asyncio.get_running_loop()
        await self.arrived.wait()
        deadline = self._since + linger_s
        while len(self._items) < messages_max and self._bytes < bytes_max:
            left_s = deadline - loop.time()
            if left_s <= 0:
                break
            self._enough = messages_max
            self._filled.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._filled.wait()
        self._enough = 0
