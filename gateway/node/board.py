"""What the workers of a gateway share: a page of memory. Which of them takes the next connection,
and the fences that they have given.

All workers accept from the same listening sockets. Each writes to its own row whether it is open to
devices and how many connections it has, and reads the rows of the others before a turn of
accepting. So a worker that is full, draining or still starting leaves the queue to the others as
long as one of them is open; and a worker that is well ahead leaves it to the others for a moment.
If no worker is open, all accept, because a refusal with a time is better than a wait in the queue.

A row is believed for five seconds after it was written, so that a worker which is merely slow is
not taken for a dead one: a worker that still starts would accept, and refuse devices whose slot has
come. The supervisor clears the row of a worker that has ended. Rows are hints: a torn read costs
one turn of accepting at most.

Behind the rows, each worker has a word with the last fence that it gave. Nobody else writes that
word, and it outlives the process, because the sessions that begin next must have higher fences.
"""

import mmap
import os
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.beats import beat

CLOSED_S: Final = 0.05
"""How long a worker that is not open leaves the queue alone before it looks again."""
AHEAD_S: Final = 0.005
"""The same for a worker that is ahead: so short that it takes all if the others do not come."""
AHEAD_BY: Final = 64
"""Connections that a worker may have more than the least loaded one; an eighth if that is more."""
BELIEVED_S: Final = 5.0
LOOK_S: Final = 0.01
"""The board is looked at once in so long: each look costs as much as a fifth of a refusal. A worker
accepts about as many connections in that time as it may be ahead."""
WRITE_S: Final = 0.25
"""How often a worker writes its row, whether or not it accepts."""

_FIELDS: Final = 3
_WORD_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Row:
    """What a worker says of itself."""

    open: bool
    """Whether it has room for a device and is neither draining nor starting."""
    connections: int
    written_s: float
    """Monotonic time of this machine, which all its processes share."""


def leave_s(own: Row, others: Sequence[Row], now_s: float) -> float:
    """For how long a worker must leave the queue to the others; 0 to accept now. Pure.

    Args:
        own: of the worker that asks.
        others: of the other workers.
        now_s: monotonic time.
    """
    taking = [row for row in others if row.open and now_s - row.written_s <= BELIEVED_S]
    if not taking:
        return 0.0
    if not own.open:
        return CLOSED_S
    least = min(row.connections for row in taking)
    return AHEAD_S if own.connections > least + max(AHEAD_BY, least // 8) else 0.0


class Board:
    """The shared page."""

    def __init__(self, descriptor: int, workers: int) -> None:
        """
        Args:
            descriptor: of the page; see `make_page`.
            workers: rows on it.
        """
        self._page = mmap.mmap(descriptor, page_bytes(workers))
        self._words = memoryview(self._page).cast("q")
        self._workers = workers

    def write(self, worker: int, row: Row) -> None:
        """Replace the row of a worker. Workers are counted from 0."""
        at = worker * _FIELDS
        words = (int(row.open), row.connections, round(row.written_s * 1e6))
        self._words[at : at + _FIELDS] = array("q", words)

    def read(self, worker: int) -> Row:
        at = worker * _FIELDS
        opened, connections, written_us = self._words[at : at + _FIELDS].tolist()
        return Row(bool(opened), connections, written_us / 1e6)

    def others(self, worker: int) -> list[Row]:
        """The rows of all workers but one."""
        return [self.read(each) for each in range(self._workers) if each != worker]

    def clear(self, worker: int) -> None:
        """The worker is gone."""
        self.write(worker, Row(False, 0, 0.0))

    def write_fence(self, worker: int, fence: int) -> None:
        """A worker has given this fence."""
        self._words[self._workers * _FIELDS + worker] = fence

    def highest_fence(self) -> int:
        """The highest fence that any worker gave last."""
        return max(self._words[self._workers * _FIELDS :])

    def close(self) -> None:
        self._words.release()
        self._page.close()


class WorkerFences:
    """The fences on the page, as one worker sees them (`FencePage`)."""

    def __init__(self, board: Board, worker: int) -> None:
        """
        Args:
            board: of all workers.
            worker: which has this object, counted from 0.
        """
        self._board = board
        self._worker = worker

    def highest_fence(self) -> int:
        return self._board.highest_fence()

    def write_fence(self, fence: int) -> None:
        self._board.write_fence(self._worker, fence)


class AcceptTurns:
    """Says when a worker may accept."""

    def __init__(
        self,
        board: Board,
        worker: int,
        *,
        is_open: Callable[[], bool],
        connections: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            board: of all workers.
            worker: whose turns they are, counted from 0.
            is_open: whether it has room for a device and is neither draining nor starting.
            connections: how many it has.
            clock: monotonic time of the machine.
        """
        self._board = board
        self._worker = worker
        self._is_open = is_open
        self._connections = connections
        self._clock = clock
        self._looked_at = float("-inf")

    def leave_s(self) -> float:
        """For how long connections must be left to the other workers; 0 to accept now."""
        now = self._clock()
        if now - self._looked_at < LOOK_S and self._is_open():
            return 0.0
        self._looked_at = now
        own = self.write()
        wait_s = leave_s(own, self._board.others(self._worker), now)
        if wait_s:
            self._looked_at = float("-inf")
        return wait_s

    async def keep_written(self) -> None:
        """Bring the own row up to date for ever."""
        while True:
            self.write()
            await beat(WRITE_S)

    def write(self) -> Row:
        """Bring the own row up to date."""
        row = Row(self._is_open(), self._connections(), self._clock())
        self._board.write(self._worker, row)
        return row


def make_page(workers: int) -> int:
    """A descriptor of a new page with a row for each worker. It is inherited by none yet."""
    descriptor = os.memfd_create("tidegate-workers", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, page_bytes(workers))
    return descriptor


def page_bytes(workers: int) -> int:
    return workers * (_FIELDS + 1) * _WORD_BYTES
