"""Open live pages, as far as a gateway is concerned: readers of its stream of snapshots."""

import asyncio
import contextlib
import json
from types import TracebackType
from typing import Any, Final, Self

from loadtest.errors import TargetError

_LINE_BYTES_MAX: Final = 2**22
_TIMEOUT_S: Final = 10.0


class Watchers:
    """So many readers of one gateway. A context."""

    def __init__(self, ops_port: int, count: int) -> None:
        self._ops_port = ops_port
        self._count = count
        self._tasks: list[asyncio.Task[None]] = []
        self.snapshots = [0] * count
        """That each has read."""

    @property
    def ended(self) -> int:
        """Pages that have lost their stream."""
        return sum(task.done() for task in self._tasks)

    async def __aenter__(self) -> Self:
        streams = [await _open(self._ops_port) for _ in range(self._count)]
        self._tasks = [
            asyncio.create_task(self._read(index, reader, writer))
            for index, (reader, writer) in enumerate(streams)
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        ended = self.ended
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if ended and error is None:
            raise TargetError(f"{ended} of {self._count} pages lost their stream")

    async def _read(
        self, index: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while await _event(reader):
                self.snapshots[index] += 1
        finally:
            writer.close()


async def history_of(ops_port: int) -> list[dict[str, Any]]:
    """The snapshots of the last five minutes, the oldest first.

    Raises:
        TargetError: the gateway does not send them.
    """
    reader, writer = await _open(ops_port)
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            event = await _event(reader)
    finally:
        writer.close()
    history = json.loads(event)["history"]
    return [dict(zip(history["names"], row, strict=True)) for row in history["rows"]]


async def _open(ops_port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", ops_port, limit=_LINE_BYTES_MAX)
    writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(_TIMEOUT_S):
        head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        writer.close()
        raise TargetError(head.partition(b"\r\n")[0].decode(errors="replace"))
    return reader, writer


async def _event(reader: asyncio.StreamReader) -> bytes:
    """The JSON of the next event; empty at the end. The stream is chunked (RFC 9112, 7.1)."""
    with contextlib.suppress(asyncio.IncompleteReadError):
        text = await reader.readuntil(b"\n\n")
        return text.partition(b"data: ")[2]
    return b""
