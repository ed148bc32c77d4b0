"""Where the tasks of a device and its application wait for changes.

Every call of the application that waits, waits here. So each of them ends when the device ends, and
raises the reason.
"""

import asyncio
from collections.abc import Callable

from tidegate.errors import DeviceError, NotOpen


class Board:
    """The state of one device that others wait for. Not thread-safe."""

    def __init__(self) -> None:
        self.version = 0
        """Counts the changes: read it before you look at the state, and give it to
        `changed_since`."""
        self.open = False
        """Whether the device is open: it has started, and has not ended."""
        self.connected = False
        """Whether a session is established."""
        self.failure: DeviceError | None = None
        """Why the device has ended by itself, if it has."""
        self._waiting: list[asyncio.Future[None]] = []

    def changed(self) -> None:
        """Something has changed: every waiting task checks its condition again."""
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
        """The device has ended. The first reason is kept."""
        self.open = self.connected = False
        self.failure = self.failure or failure
        self.changed()

    def check_open(self) -> None:
        """Return if the device is open.

        Raises:
            DeviceError: the device has ended by itself, and this is why.
            NotOpen: the device was not started, or the application has left it.
        """
        if not self.open:
            if self.failure is not None:
                raise self.failure.with_traceback(None)
            raise NotOpen("the device is not open: use it inside `async with`")

    async def changed_since(self, version: int) -> None:
        """Wait for a change after `version`."""
        if self.version == version:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until `condition` holds.

        Raises:
            DeviceError: the device ended first, and this is why; NotOpen if it was not open.
        """
        while not condition():
            self.check_open()
            await self.changed_since(self.version)


class Connected:
    """Whether a session is established: `is_set()`, `await wait()`, or in an `if`."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def is_set(self) -> bool:
        return self._board.connected

    def __bool__(self) -> bool:
        return self._board.connected

    async def wait(self) -> None:
        """Wait for a session.

        Raises:
            DeviceError: the device has ended, and this is why.
        """
        await self._board.until(self.is_set)
