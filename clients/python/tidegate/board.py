"""Where the tasks of a device and its application wait for news, and learn of the end.

Every call of the application that waits, waits here. So each of them ends with the device, and says
why.
"""

import asyncio
from collections.abc import Callable

from tidegate.errors import DeviceError, NotOpen


class Board:
    """News of one device. Not thread-safe."""

    def __init__(self) -> None:
        self.version = 0
        """Counts the changes: read it before looking, give it to `changed_since`."""
        self.open = False
        """Whether the device is open: neither before its start nor after its end."""
        self.connected = False
        """Whether a session is established."""
        self.failure: DeviceError | None = None
        """Why the device has ended, if something made it end."""
        self._waiting: list[asyncio.Future[None]] = []

    def changed(self) -> None:
        """Something is new: whoever waits looks again."""
        self.version += 1
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    def set_connected(self, connected: bool) -> None:
        if connected is not self.connected:
            self.connected = connected
            self.changed()

    def end(self, failure: DeviceError | None) -> None:
        """The device has ended; the first reason stays."""
        self.open = self.connected = False
        self.failure = self.failure or failure
        self.changed()

    def check_open(self) -> None:
        """
        Raises:
            DeviceError: the device has ended, and this is why.
            NotOpen: it was not started, or ended as its application wished.
        """
        if not self.open:
            if self.failure is not None:
                raise self.failure.with_traceback(None)
            raise NotOpen("the device is not open: use it inside `async with`")

    async def changed_since(self, version: int) -> None:
        """Wait until there is news after `version`."""
        if self.version == version:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until `condition` holds.

        Raises:
            DeviceError: the device ended first, and this is why; NotOpen if it was not started.
        """
        while not condition():
            self.check_open()
            await self.changed_since(self.version)
