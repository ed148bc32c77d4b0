"""Atomic batches into one stream, which the rules of a process share.

A stream that syncs each write takes as long for a batch of ten messages as for one of a thousand.
So the messages of all rules to a stream go into one batch. While a batch is committed, the next one
is filled and sent but for its last message:

    submit --> waiting --> open batch --(no other is being committed)--> committed --> settled
                           up to `BATCH_MESSAGES_MAX` messages

Only this way is shared. If the stream refuses a batch, nothing of it is stored, and every parcel
that waits is given back: each rule stores its own messages (`own_batches.py`), so a message that
the stream does not take delays its own rule only.

A parcel is stored as a whole or not at all, and parcels are stored in the order of `submit`.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import nats.errors
from msgspec import Struct

from gateway.consumers.delivery.answers import ANSWER_S, Answer, Answers
from gateway.consumers.delivery.derived import Derived, encode_commit, encode_single, encode_staged
from gateway.consumers.delivery.refusals import NOTHING_STORED
from gateway.consumers.errors import NotOwner, TargetAway
from gateway.stream.link.client import LinkClient

BATCH_MESSAGES_MAX: Final = 1_000
"""The server's own limit, unless an operator changes it."""
BATCH_BYTES_MAX: Final = 2 << 20
OWN_BATCHES_MAX: Final = 8
"""Rules of a process that store into one stream on their own at once. Each has up to two batches
open, as `BatchWriter` has, and a stream allows 50."""


class Outcome(Struct, frozen=True, gc=False):
    """What became of a parcel."""

    seq: int = 0
    """Sequence of its last message in the stream. 0: nothing of it is stored."""
    away: str = ""
    """Why it is not known what is stored; empty if it is known."""


class Parcel:
    """Messages of one rule, few enough for one batch."""

    __slots__ = ("guard", "messages", "outcome", "size_bytes")

    def __init__(
        self, messages: Sequence[Derived], size_bytes: int, guard: Callable[[], None]
    ) -> None:
        """
        Args:
            messages: at least one, in order.
            size_bytes: of all of them.
            guard: raises NotOwner if this process must not write any more.
        """
        self.messages = messages
        self.size_bytes = size_bytes
        self.guard = guard
        self.outcome: asyncio.Future[Outcome] | None = None
        """The result, from `submit` on."""

    @property
    def under_way(self) -> bool:
        """Whether it is submitted and not refused: what is submitted now comes behind it."""
        outcome = self.outcome
        return outcome is not None and (not outcome.done() or outcome.result().seq > 0)


class _Batch:
    """A batch that is being filled: all of it is sent but its last message."""

    __slots__ = ("answer", "count", "held", "id", "parcels", "size_bytes")

    def __init__(self) -> None:
        self.id = secrets.token_hex(11).encode()
        self.parcels: list[Parcel] = []
        self.count = 0
        self.size_bytes = 0
        self.held: Derived | None = None
        self.answer: asyncio.Future[Answer] | None = None

    def has_room(self, parcel: Parcel) -> bool:
        return (
            self.count + len(parcel.messages) <= BATCH_MESSAGES_MAX
            and self.size_bytes + parcel.size_bytes <= BATCH_BYTES_MAX
        )

    def add(self, parcel: Parcel) -> bytes:
        """What to send now."""
        messages = list(parcel.messages)
        first = self.count + 1
        if self.held is not None:
            messages.insert(0, self.held)
            first -= 1
        self.held = messages.pop()
        self.parcels.append(parcel)
        self.count += len(parcel.messages)
        self.size_bytes += parcel.size_bytes
        return encode_staged(messages, self.id, first) if messages else b""

    def commit(self, reply: bytes, stream: bytes) -> bytes:
        """What is left to send."""
        assert self.held is not None
        if self.count == 1:
            return encode_single(self.held, reply, stream)
        return encode_commit(self.held, self.id, self.count, reply, stream)


class BatchWriter:
    """Writes what rules derive into one stream, over one connection."""

    def __init__(self, client: LinkClient, stream: str) -> None:
        self.client = client
        self.own_gate = asyncio.Semaphore(OWN_BATCHES_MAX)
        """For rules that store on their own."""
        self.answers = Answers(client)
        self._stream = stream.encode()
        self._waiting: deque[Parcel] = deque()
        self._open: _Batch | None = None
        self._committed: _Batch | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = False

    async def open(self) -> None:
        """
        Raises:
            TargetAway: NATS does not answer.
        """
        try:
            await self.answers.open()
        except (nats.errors.Error, TimeoutError) as exc:
            raise TargetAway(f"NATS does not answer: {exc or type(exc).__name__}") from exc

    def submit(self, parcel: Parcel) -> None:
        """Store a parcel behind all that were submitted before. Its `outcome` tells the end."""
        loop = asyncio.get_running_loop()
        parcel.outcome = loop.create_future()
        self._waiting.append(parcel)
        if not self._due:  # rules that run in this turn of the loop share a batch
            self._due = True
            loop.call_soon(self._go_on)

    def withdraw(self, parcels: Sequence[Parcel]) -> None:
        """Forget these parcels, except for those that are being committed."""
        for parcel in parcels:
            if parcel.outcome is not None:
                parcel.outcome.cancel()
        self._waiting = deque(each for each in self._waiting if each not in parcels)
        batch = self._open
        if batch is not None and any(each in parcels for each in batch.parcels):
            self._open = None  # its last message is never sent, so the server forgets it
            self._waiting.extendleft(
                each for each in reversed(batch.parcels) if each not in parcels
            )
            self._go_on()

    async def answered(self) -> None:
        """Wait until the stream has said what became of the batch that is being committed."""
        batch = self._committed
        if batch is not None and batch.answer is not None:
            await asyncio.wait({batch.answer})  # it ends by `ANSWER_S`

    def _go_on(self) -> None:
        self._due = False
        try:
            self._fill()
            if self._open is not None and self._committed is None:
                self._commit(self._open)
                self._fill()
        except TargetAway as exc:
            self._settle_all(Outcome(away=str(exc)))
        except NotOwner:
            self._settle_all(Outcome())  # each rule asks its own lease

    def _fill(self) -> None:
        waiting, commands = self._waiting, []
        while waiting:
            batch = self._open
            if batch is None:
                batch = self._open = _Batch()
            elif not batch.has_room(waiting[0]):
                break
            commands.append(batch.add(waiting.popleft()))
        if commands:
            self.answers.write(b"".join(commands))

    def _commit(self, batch: _Batch) -> None:
        for parcel in batch.parcels:
            parcel.guard()
        reply, future = self.answers.reply()
        self.answers.write(batch.commit(reply, self._stream))
        future.add_done_callback(partial(self._answered, batch))
        self._timer = asyncio.get_running_loop().call_later(ANSWER_S, future.cancel)
        batch.answer = future
        self._open, self._committed = None, batch

    def _answered(self, batch: _Batch, future: asyncio.Future[Answer]) -> None:
        if batch is not self._committed:
            return  # it was given up
        assert self._timer is not None
        self._timer.cancel()
        if future.cancelled():
            self.answers.forget_cancelled()
            self._settle_all(Outcome(away=f"no answer from the target's stream in {ANSWER_S:g} s"))
            return
        answer = future.result()
        if answer.error is not None:
            refused = answer.error.err_code in NOTHING_STORED
            away = "" if refused else f"the target's stream says: {answer.error.description}"
            self._settle_all(Outcome(away=away))
        elif batch.count > 1 and answer.count != batch.count:
            away = f"{answer.count} of {batch.count} messages were stored"
            self._settle_all(Outcome(away=away))
        else:
            # A batch is stored in one piece, so the sequences of its messages are consecutive.
            seq = answer.seq - batch.count
            for parcel in batch.parcels:
                seq += len(parcel.messages)
                _settle(parcel, Outcome(seq))
            self._committed = None
            self._go_on()

    def _settle_all(self, outcome: Outcome) -> None:
        """Give back whatever was submitted: no parcel may be stored before an earlier one."""
        batches = [each for each in (self._committed, self._open) if each is not None]
        parcels = [parcel for batch in batches for parcel in batch.parcels] + list(self._waiting)
        self._committed = self._open = None
        self._waiting.clear()
        for parcel in parcels:
            _settle(parcel, outcome)


def _settle(parcel: Parcel, outcome: Outcome) -> None:
    future = parcel.outcome
    if future is not None and not future.done():
        future.set_result(outcome)


class BatchWriters:
    """The writers of one process: one for each stream that rules write to."""

    def __init__(self) -> None:
        self._writers: dict[str, BatchWriter] = {}
        self._opening = asyncio.Lock()

    async def of(self, client: LinkClient, stream: str) -> BatchWriter:
        """The writer of a stream over the process's connection.

        Raises:
            TargetAway: NATS does not answer.
        """
        async with self._opening:
            writer = self._writers.get(stream)
            if writer is None or writer.client is not client:
                writer = BatchWriter(client, stream)
                await writer.open()
                self._writers[stream] = writer
            return writer
