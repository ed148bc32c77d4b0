"""The outbox and the thread that owns it: the event loop never waits for the disk.

Appends share commits: all messages that were sent while the last commit ran share the sync of the
next one. `settle` does not wait. The thread settles in its turn, and always before the file is
closed, even if the tasks that asked for it were cancelled.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import TypeVar

from tidegate.clock import Clock
from tidegate.environment import Environment
from tidegate.errors import DeviceError, NotOpen, OutboxError
from tidegate.outbox import Entry, Outbox, OutboxLimits, Run
from tidegate.wire.frames import Message

_log = logging.getLogger("tidegate.outbox")
_T = TypeVar("_T")

Stored = asyncio.Future[int]


class OutboxThread:
    """An open outbox. `open` makes it; always `close` it."""

    def __init__(self, outbox: Outbox, thread: Executor, on_change: Callable[[], None]) -> None:
        self.outbox = outbox
        self._thread = thread
        self._loop = asyncio.get_running_loop()
        self._on_change = on_change
        self._appends: deque[tuple[Entry, Stored]] = deque()
        self._settles: dict[str, int] = {}
        self._queued = False
        self._closing: Future[None] | None = None
        self._complaint = ""

    @classmethod
    async def open(
        cls,
        path: Path | str,
        limits: OutboxLimits | None,
        on_change: Callable[[], None],
        environment: Environment,
        make: Callable[[Path | str, OutboxLimits | None, Clock], Outbox] = Outbox,
    ) -> "OutboxThread":
        """Open the file. If it fails or is cancelled, nothing stays open.

        Args:
            path: of the file.
            limits: what it may hold.
            on_change: called in the event loop after each commit.
            environment: has the thread, and the clock of the messages' ages.
            make: makes the outbox.

        Raises:
            OutboxError: the file cannot be used, or is open already.
        """
        thread = environment.executor()
        job = thread.submit(make, path, limits, environment.clock)
        opening = asyncio.wrap_future(job)
        try:
            await asyncio.wait({opening})
        except asyncio.CancelledError:
            # This runs in the thread, even if the loop ends first.
            job.add_done_callback(_close_unwanted)
            opening.add_done_callback(_seen)
            thread.shutdown(wait=False)
            raise
        try:
            outbox = opening.result()
        except (OutboxError, OSError, ValueError, TypeError) as exc:
            thread.shutdown(wait=False)
            if isinstance(exc, OutboxError):
                raise
            raise OutboxError(f"outbox {path}: {exc}") from exc
        return cls(outbox, thread, on_change)

    async def append(self, entry: Entry) -> int:
        """Store a message durably.

        Returns:
            Its number.

        Raises:
            OutboxFull: the outbox is at its bound, and its policy is to refuse.
            OutboxError: the disk refused.
            NotOpen: the outbox is closed.
        """
        if self._closing is not None:
            raise NotOpen("the outbox is closed")
        stored: Stored = self._loop.create_future()
        self._appends.append((entry, stored))
        self._queue_work()
        return await stored

    def settle(self, identity: str, seq: int) -> None:
        """Delete the messages of an id up to `seq`, soon."""
        self._settles[identity] = max(seq, self._settles.get(identity, 0))
        self._queue_work()

    async def begin(self) -> Run:
        """What the next hello announces.

        Raises:
            OutboxError: the disk refused.
        """
        return await self._call(self._begin)

    async def read(
        self,
        identity: str,
        after: int,
        *,
        messages_max: int,
        bytes_max: int,
        fits: Callable[[Message], bool],
    ) -> list[Message]:
        """Messages of an id after `after`. One that does not fit is returned alone.

        Raises:
            OutboxError: the disk refused.
        """
        return await self._call(
            lambda: self.outbox.read(
                identity, after, messages_max=messages_max, bytes_max=bytes_max, fits=fits
            )
        )

    async def remove(self, number: int) -> bool:
        """Give up one message.

        Raises:
            OutboxError: the disk refused.
        """
        return await self._call(lambda: self.outbox.remove(number))

    async def remember_features(self, known: bool) -> None:
        """Remember whether gateways here announce `features`. A full disk forgets it."""
        if known is self.outbox.gateway_has_features:
            return
        try:
            await self._call(lambda: self.outbox.remember_features(known))
        except OutboxError as exc:
            self.complain(exc)

    async def tend(self) -> None:
        """Try again what the disk refused, and give free room back."""
        try:
            while await self._call(self.outbox.tend):
                pass
        except OutboxError as exc:
            self.complain(exc)
        else:
            self._complaint = ""
        self._on_change()

    async def run(self, work: Callable[[], _T]) -> _T:
        """Run `work` in the thread that owns the file. A cancellation does not stop it.

        Raises:
            NotOpen: the outbox is closed.
            OutboxError: the disk refused.
        """
        if self._closing is not None:
            raise NotOpen("the outbox is closed")
        return await asyncio.shield(self._call(work))

    def complain(self, exc: OutboxError) -> None:
        """Log what the disk refuses, once for each message."""
        if str(exc) != self._complaint:
            self._complaint = str(exc)
            _log.warning("%s; trying again", exc)

    async def caught_up(self) -> None:
        """Wait until the thread has done everything that was asked of it so far."""
        await self._call(self._settle_all)

    async def close(self) -> None:
        """Finish, settle and release the file. A cancellation does not interrupt it."""
        if self._closing is None:
            self._closing = self._thread.submit(self._close)
            self._thread.shutdown(wait=False)
        closing = asyncio.wrap_future(self._closing)
        cancelled = False
        while not closing.done():
            try:
                await asyncio.wait({closing})
            except asyncio.CancelledError:
                cancelled = True
        if closing.exception() is not None:
            _log.error("the outbox was not closed in order: %s", closing.exception())
        if cancelled:
            raise asyncio.CancelledError

    # In the event loop

    def _call(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        return asyncio.wrap_future(self._thread.submit(work))

    def _queue_work(self) -> None:
        if not self._queued and self._closing is None:
            self._queued = True
            self._thread.submit(self._work).add_done_callback(self._worked)

    def _worked(self, work: Future[None]) -> None:
        """In the thread: a commit has ended. Log an error that is not the disk's."""
        problem = work.exception()
        if problem is not None:
            _log.error("the outbox failed", exc_info=problem)
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(self._on_change)

    def _deliver(self, results: list[tuple[Stored, int | DeviceError]]) -> None:
        for stored, result in results:
            if stored.done():  # its task was cancelled; the message is stored all the same
                continue
            if isinstance(result, int):
                stored.set_result(result)
            else:
                stored.set_exception(result)

    # In the thread

    def _work(self) -> None:
        self._queued = False  # first, so that later requests queue work anew
        self._settle_all()
        self._append_all()

    def _begin(self) -> Run:
        self._settle_all()
        return self.outbox.begin()

    def _append_all(self) -> None:
        taken: list[tuple[Entry, Stored]] = []
        while self._appends:
            taken.append(self._appends.popleft())
        if not taken:
            return
        numbers: Sequence[int | DeviceError]
        try:
            numbers = self.outbox.append([entry for entry, _stored in taken])
        except OutboxError as exc:
            numbers = [exc] * len(taken)
        except Exception as exc:
            numbers = [OutboxError(f"the outbox failed: {exc!r}")] * len(taken)
            raise
        finally:
            results = [(stored, number) for (_, stored), number in zip(taken, numbers, strict=True)]
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(self._deliver, results)

    def _settle_all(self) -> None:
        while self._settles:
            identity, seq = self._settles.popitem()
            try:
                self.outbox.settle(identity, seq)
            except OutboxError as exc:
                # The outbox remembers it and tries again by itself.
                self.complain(exc)

    def _close(self) -> None:
        try:
            self._settle_all()
            self._append_all()
            with contextlib.suppress(OutboxError):  # logged before; the next start settles it
                self.outbox.tend()
        finally:
            self.outbox.close()


def _close_unwanted(opening: Future[Outbox]) -> None:
    if opening.exception() is None:
        opening.result().close()


def _seen(opening: asyncio.Future[Outbox]) -> None:
    """Nobody waits for it any more, so its error is of no use."""
    if not opening.cancelled():
        opening.exception()
