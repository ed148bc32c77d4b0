"""The state of one device between its sessions, its disk and its application."""

import asyncio
import logging
from collections.abc import AsyncIterator
from functools import partial

from tidegate.board import Board
from tidegate.errors import NotOpen, OutboxError
from tidegate.outbox_thread import OutboxThread
from tidegate.states import State, StateRecord, objection, replaces
from tidegate.wire import frames

_log = logging.getLogger("tidegate.device")


class Desired:
    """The newest state. It is on the disk before the application sees it, so that the application
    sees no older one after a restart. If the disk refuses, the application sees it all the same.
    """

    def __init__(self, wanted: bool, store: OutboxThread, board: Board) -> None:
        """
        Args:
            wanted: whether the application wants states.
            store: has the state that was kept, and keeps the newest.
            board: hears of each change.
        """
        self.wanted = wanted
        self._store = store
        self._board = board
        self._newest = self._shown = store.outbox.states.kept
        self._changes = 0
        self._arrived = asyncio.Event()

    @property
    def version(self) -> str | None:
        """What a hello says: the version of the newest state, empty for none; None if no state is
        wanted.
        """
        if not self.wanted:
            return None
        return self._newest.version if self._newest is not None else ""

    @property
    def state(self) -> State | None:
        """The state that the application sees."""
        return self._shown.decode() if self._shown is not None else None

    def hear(self, frame: frames.State) -> None:
        """Take a state of the gateway, unless it is not newer or cannot be used."""
        if not self.wanted:
            return
        record = StateRecord(frame.version, bytes(frame.desired))
        if self._newest is not None and not replaces(record.version, self._newest.version):
            _log.debug("the state %.64r is not newer", record.version)
            return
        problem = objection(record)
        if problem is not None:
            _log.warning("the state %.64r is ignored: %s", record.version, problem)
            return
        self._newest = record
        self._arrived.set()

    async def record(self) -> None:
        """Write each newest state to the disk and show it, until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            newest = self._newest
            assert newest is not None
            try:
                await self._store.run(partial(self._store.outbox.states.save, newest))
            except OutboxError as exc:
                self._store.complain(exc)
            self._shown = newest
            self._changes += 1
            self._board.changed()

    def _has_changed(self, seen: int) -> bool:
        return self._shown is not None and self._changes != seen

    async def states(self) -> AsyncIterator[State]:
        """The present state, if there is one, and then each newest one.

        Raises:
            DeviceError: the device has ended by itself, and this is why.
        """
        seen = -1
        while True:
            try:
                await self._board.until(partial(self._has_changed, seen))
            except NotOpen:
                return
            seen = self._changes
            state = self.state
            assert state is not None
            yield state
