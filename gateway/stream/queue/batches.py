"""Facts on their way into the stream COMMANDS: those of one moment share an atomic batch.

With fsync, each write of its own is a sync of the disk, which the messages of devices wait for too.
So one batch is in flight at a time, what comes meanwhile is the next one, and between two batches
there is a rest that grows with the time that storing takes. A fact that comes alone is written at
once. If the server refuses a batch, it has stored nothing of it: the facts are written one by one,
and each has its own answer.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from gateway.stream.errors import FactConflict, StoreAway
from gateway.stream.lanes.encoding import Publication

_BATCH_FACTS: Final = 100
_REST_SHARE: Final = 3.0
"""A rest lasts so many times as long as storing took: a quarter of the time belongs to facts."""
_REST_MAX_S: Final = 0.02
"""A longer rest saves the disk little, and each command waits for three of them."""


class Appending(Protocol):
    """Writes to the stream. Both methods raise `StoreAway` if the answer is not known."""

    async def append_one(self, message: Publication) -> int:
        """Store a message. Returns its sequence.

        Raises:
            FactConflict: its subject has another last message than it expects.
        """

    async def append_all(self, messages: Sequence[Publication]) -> int | None:
        """Store all messages or none. Returns the sequence of the last one; None for none."""


class _Write:
    """A fact that waits, and what became of it: its sequence, or the error."""

    __slots__ = ("message", "outcome")

    def __init__(self, message: Publication) -> None:
        self.message = message
        self.outcome: int | StoreAway | FactConflict | None = None


class FactBatches:
    """Gathers the writes of many steps."""

    def __init__(self, appending: Appending, clock: Callable[[], float]) -> None:
        """
        Args:
            appending: the stream.
            clock: monotonic seconds.
        """
        self._appending = appending
        self._clock = clock
        self._waiting: list[_Write] = []
        self._turn = asyncio.Lock()
        """Is held by the writer of the batch in flight. The others wait for it in order."""
        self._rest_until = 0.0

    async def write(self, message: Publication) -> int:
        """Store a fact, perhaps together with others. Returns its sequence.

        Raises:
            FactConflict: its subject has another last message than it expects.
            StoreAway: whether it is stored is not known.
        """
        write = _Write(message)
        self._waiting.append(write)
        try:
            async with self._turn:
                if write.outcome is None:
                    await asyncio.sleep(max(0.0, self._rest_until - self._clock()))
                    await self._store_waiting()
        finally:
            if write.outcome is None:  # its step was cancelled, perhaps while it was in flight
                with contextlib.suppress(ValueError):
                    self._waiting.remove(write)
        if not isinstance(write.outcome, int):
            raise write.outcome or StoreAway("the fact was not written")
        return write.outcome

    async def _store_waiting(self) -> None:
        batch = self._waiting[:_BATCH_FACTS]
        del self._waiting[:_BATCH_FACTS]
        began = self._clock()
        try:
            if len(batch) == 1 or not await self._store_together(batch):
                await asyncio.gather(*map(self._store_one, batch))
        except StoreAway as exc:
            for write in batch:
                write.outcome = StoreAway(str(exc))
        finally:
            for write in batch:
                write.outcome = write.outcome or StoreAway("the writer of the batch was cancelled")
            ended = self._clock()
            self._rest_until = ended + min(_REST_SHARE * (ended - began), _REST_MAX_S)

    async def _store_together(self, batch: Sequence[_Write]) -> bool:
        """Whether the batch is stored.

        Raises:
            StoreAway: that is not known.
        """
        last = await self._appending.append_all([write.message for write in batch])
        if last is None:
            return False
        for seq, write in enumerate(batch, last - len(batch) + 1):
            write.outcome = seq
        return True

    async def _store_one(self, write: _Write) -> None:
        try:
            write.outcome = await self._appending.append_one(write.message)
        except (StoreAway, FactConflict) as exc:
            write.outcome = exc
