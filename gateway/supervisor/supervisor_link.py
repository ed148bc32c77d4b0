"""A worker's side of what it and its supervisor tell each other."""

import asyncio
import itertools
import socket
from collections.abc import Callable
from typing import Any

import structlog

from gateway.supervisor.errors import SupervisorError
from gateway.supervisor.messages import (
    LINE_BYTES_MAX,
    HandOver,
    Look,
    Seen,
    Stop,
    ToSupervisor,
    Write,
    Written,
    line_of,
    parse_to_worker,
)

_log = structlog.get_logger(__name__)


class SupervisorLink:
    """The connection to the supervisor."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(1)
        self._writes: dict[int, asyncio.Future[str]] = {}
        self._leaving = 0

    @classmethod
    async def of(cls, control: socket.socket) -> "SupervisorLink":
        """Over this half of a socket pair."""
        return cls(*await asyncio.open_connection(sock=control, limit=LINE_BYTES_MAX))

    async def hand_over(self) -> HandOver:
        """The first line.

        Raises:
            SupervisorError: the supervisor is gone.
        """
        line = await self._reader.readline()
        if not line:
            raise SupervisorError("the supervisor ended before it said what this worker is to be")
        message = parse_to_worker(line)
        assert isinstance(message, HandOver)
        return message

    def leaving(self) -> int:
        """The other workers that stop together with this one."""
        return self._leaving

    def say(self, message: ToSupervisor) -> None:
        """Tell the supervisor."""
        if not self._writer.is_closing():
            self._writer.write(line_of(message))

    async def write(self, name: str, text: str) -> None:
        """Have a file of the data directory written.

        Raises:
            OSError: it is not: the disk refuses, or the supervisor is gone.
        """
        number = next(self._numbers)
        written = self._writes[number] = asyncio.get_running_loop().create_future()
        self.say(Write(number, name, text))
        try:
            error = await written
        finally:
            del self._writes[number]
        if error:
            raise OSError(0, error)

    def write_soon(self, name: str, text: str) -> None:
        """The same, without an answer."""
        self.say(Write(0, name, text))

    async def run(
        self, drain: Callable[[bool], None], snapshot: Callable[[], dict[str, Any]]
    ) -> None:
        """Do as the supervisor says, until it is gone: then nothing can be stored any more.

        Args:
            drain: empties the worker and ends it; if True, it ends at once.
            snapshot: takes a snapshot of the worker, as plain values.
        """
        while line := await self._reader.readline():
            message = parse_to_worker(line)
            if isinstance(message, Stop):
                self._leaving = message.leaving
                drain(message.now)
            elif isinstance(message, Look):
                self._show(message.number, snapshot)
            elif isinstance(message, Written) and message.number in self._writes:
                self._writes[message.number].set_result(message.error)
        _log.error("supervisor_gone", action="stop")
        for written in self._writes.values():
            written.set_result("the supervisor is gone")
        drain(True)

    def _show(self, number: int, snapshot: Callable[[], dict[str, Any]]) -> None:
        try:
            taken = snapshot()
        except Exception as exc:  # noqa: BLE001  # the page is needed most when a part of it fails
            _log.error("snapshot_failed", exc_info=exc)
            taken = None
        self.say(Seen(number, taken))

    async def close(self) -> None:
        """Say what is left to be said, and end."""
        if not self._writer.is_closing():
            self._writer.close()
