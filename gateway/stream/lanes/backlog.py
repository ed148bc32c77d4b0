"""What a node holds that is not settled yet, and the bounds on it."""

import asyncio
from collections.abc import Callable
from typing import Final

_ROOM_SHARE: Final = 0.75
"""Sessions that wait for room go on once no more than this share of the bounds is in use."""


class Backlog:
    """Messages received and not yet settled, of all lanes of a node."""

    __slots__ = ("_bytes_max", "_emptied", "_messages_max", "_waiters", "bytes", "messages")

    def __init__(self, *, messages_max: int, bytes_max: int) -> None:
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._waiters: list[Callable[[], None]] = []
        self._emptied: asyncio.Event | None = None
        """Of those that wait until nothing is held."""
        self.messages = 0
        self.bytes = 0

    @property
    def full(self) -> bool:
        """Whether the node holds all it may; a session must then stop reading its device."""
        return self.messages >= self._messages_max or self.bytes >= self._bytes_max

    def share(self) -> float:
        """Share of the bounds in use."""
        return max(self.messages / self._messages_max, self.bytes / self._bytes_max)

    def add(self, messages: int, size: int) -> None:
        """So many messages came in, `size` bytes together."""
        self.messages += messages
        self.bytes += size

    def grow(self, size: int) -> None:
        """A message that is held has become larger by so many bytes."""
        self.bytes += size

    def release(self, messages: int, size: int) -> None:
        """So many messages are settled, or dropped because a newer session resends them."""
        self.messages -= messages
        self.bytes -= size
        if not self.messages and self._emptied is not None:
            self._emptied.set()
            self._emptied = None
        if self._waiters and self.share() <= _ROOM_SHARE:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                waiter()

    def when_drained(self, callback: Callable[[], None]) -> None:
        """Call `callback` once there is room again."""
        self._waiters.append(callback)

    async def wait_empty(self) -> None:
        """Wait until everything is settled."""
        if self.messages:
            if self._emptied is None:
                self._emptied = asyncio.Event()
            await self._emptied.wait()
