"""The durable outbox: messages that the application sent and the gateway has not acknowledged.

The same file keeps the device's commands (`command_log.py`) and its state (`state_shelf.py`).

When `append` returns, a message survives the process and the power. It then has two names:

- its *number*, which rises with each append to this file. It is used on this machine only:
  `Device.send` returns it, and the callbacks get it.
- its (*id*, *seq*) on the wire. Each opening of the file takes a new random id, and seq rises by
  one within an id. So (id, seq) never names two messages, whatever copy of the file comes back: a
  restored image, a clone, or the content of a disk that did not really sync. A message that may
  have been sent keeps its (id, seq).

An earlier process may have sent the messages that the file held when it was opened. Messages that
were added since may have been sent once `read` has returned them.

Ids are sent in the order of their messages. `begin` names the first one, and the session whose
`hello` names it reads and settles that id until it is empty.

The outbox is bounded in messages, bytes and age, and each message is judged by itself. At a bound
the application chooses what gives way: the new message (refused, the default) or the oldest ones
(dropped, and counted).

Dropping behind messages that are on their way leaves a hole, and a session must not skip a seq. The
messages behind the hole get a fresh id if they were never sent. Otherwise `read` shows the hole,
and only a new session, whose `hello` names the oldest seq, can pass it.
"""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from msgspec import UNSET, Raw

from tidegate.bounds import OutboxLimits
from tidegate.clock import Clock
from tidegate.command_log import CommandLog
from tidegate.elapsed import OutboxTime, Stamp
from tidegate.errors import OutboxError, OutboxFull
from tidegate.ledger import Entry, Ledger, Run
from tidegate.outbox_file import OutboxFile
from tidegate.outbox_room import Room
from tidegate.outbox_rows import Rows
from tidegate.state_shelf import StateShelf
from tidegate.wire.frames import Message

__all__ = ["Entry", "Outbox", "OutboxLimits", "Run"]

_SHRINK_STEPS_MAX: Final = 64
"""`close` gives back at most 256 MiB to the disk."""
_MESSAGE_OVERHEAD_BYTES: Final = 64
"""An upper bound of what a message takes in a frame beside type, data and time."""


class Outbox:
    """One outbox file, owned by one process. Blocking; call it from one thread at a time.

    The plain numbers (`messages`, `bytes`, `dropped`, `next_number`, `settled`, `now_ms`) may be
    read from any thread.
    """

    def __init__(
        self,
        path: Path | str,
        limits: OutboxLimits | None = None,
        clock: Clock | None = None,
    ) -> None:
        """
        Args:
            path: of the file.
            limits: what it may hold.
            clock: the time; the default is the system's. Ages need its time since boot and its
                wall clock.

        Raises:
            OutboxError: the file cannot be opened, is not an outbox, or is open already.
        """
        clock = clock if clock is not None else Clock()
        now = clock.uptime()
        self._file = OutboxFile(path, Stamp(0, now.boot, now.ms, int(clock.wall() * 1000)))
        self._rows = Rows(self._file.database)
        try:
            with self._file.reading():
                state = self._rows.state()
                self._ledger = Ledger(self._file, self._rows, state)
                self._time = OutboxTime(state.stamp, clock.uptime, clock.wall)
                self.commands = CommandLog(self._file, self._rows, self._time)
                self.states = StateShelf(self._file)
        except OutboxError:
            self._file.close()
            raise
        self._features = state.features
        self._room = Room(limits or OutboxLimits(), self._ledger, self._time, self._file.path)

    @property
    def messages(self) -> int:
        """Messages in the file."""
        return self._ledger.book.messages

    @property
    def bytes(self) -> int:
        """Bytes of `data` in the file."""
        return self._ledger.book.bytes

    @property
    def dropped(self) -> int:
        """Messages dropped at a bound since the opening. Those on their way may be stored."""
        return self._ledger.book.dropped

    @property
    def next_number(self) -> int:
        """The number of the next message."""
        return self._ledger.book.next_number

    @property
    def settled(self) -> int:
        """Every message up to this number has left the outbox."""
        return self._ledger.settled

    @property
    def now_ms(self) -> int:
        """The outbox's own time, which no wall clock sets back (`elapsed.py`)."""
        return self._time.now().outbox_ms

    @property
    def gateway_has_features(self) -> bool:
        """Whether the gateways here have announced `features` in a `welcome` (durable)."""
        return self._features

    def remember_features(self, known: bool) -> None:
        """Remember whether gateways here announce `features`.

        Raises:
            OutboxError: the disk refused; this process remembers it all the same.
        """
        if known is not self._features:
            self._features = known
            with self._file.transaction(synced=False):
                self._rows.save_features(known)

    # Adding

    def append(self, entries: Sequence[Entry]) -> list[int | OutboxFull]:
        """Store `entries` durably in one commit. Each is judged by itself.

        Returns:
            For each its number, or the error that refuses it.

        Raises:
            OutboxError: the disk refused, or the file was removed or replaced; nothing is stored.
        """
        self._file.check()
        self._forget_owed()
        with self._ledger.changing():
            self._room.expire()
            verdicts = self._room.judge(entries)
            taken = [entry for entry, full in zip(entries, verdicts, strict=True) if full is None]
            first = self._ledger.book.next_number
            if taken:
                now = self._time.now()
                self._ledger.add(taken, self._room.make(taken), now.outbox_ms)
                self._rows.save_state(self._ledger.book.next_number, now)
                self._time.saved(now)
        numbers = iter(range(first, first + len(taken)))
        return [next(numbers) if full is None else full for full in verdicts]

    # Giving way

    def expire(self) -> int:
        """Drop the messages over the age bound, if the limits say so.

        `append`, `begin` and `read` do it too. Call this at times, so that the bound holds while
        nothing else happens.

        Returns:
            How many messages were dropped.

        Raises:
            OutboxError: the disk refused; nothing has changed.
        """
        with self._file.reading():
            due = self._room.has_expired
        if not due:
            return 0
        before = self._ledger.book.dropped
        with self._ledger.changing(synced=False):
            self._room.expire()
        return self._ledger.book.dropped - before

    # Sending

    def begin(self) -> Run:
        """What the next `hello` announces: the id of the oldest message, or, without messages, the
        id of the next one. From now on no message counts as on its way.

        Raises:
            OutboxError: the disk refused.
        """
        ledger = self._ledger
        ledger.session, ledger.position = None, 0
        # A full disk must not keep messages from being sent; `tend` reports the error.
        with contextlib.suppress(OutboxError):
            self._forget_owed()
            self.expire()
        with self._file.reading():
            run = ledger.head(self._time.now().outbox_ms)
        ledger.session, ledger.position = run.first, run.number(run.oldest) - 1
        return run

    def read(
        self,
        identity: str,
        after: int,
        *,
        messages_max: int,
        bytes_max: int,
        fits: Callable[[Message], bool] | None = None,
    ) -> list[Message]:
        """Messages of an id that follow seq `after`, in order and without a hole among them.

        The messages that it returns count as sent, with two exceptions. If the first is not
        `after` + 1, the messages between were dropped, and only a new session can continue. If the
        first does not fit, it is returned alone: `remove` it.

        Args:
            identity: the id that `begin` named.
            after: the seq of the last message sent.
            messages_max: how many messages at most.
            bytes_max: size of their frame at most; a larger message is returned alone.
            fits: whether a message can be sent at all.

        Raises:
            OutboxError: the disk refused.
        """
        with contextlib.suppress(OutboxError):  # as in `begin`
            self.expire()
        with self._file.reading():
            first = self._rows.first_of(identity)
            if first is None:
                return []
            batch = self._read(first, after, messages_max, bytes_max)
        if not batch or batch[0].seq != after + 1:
            return batch
        if fits is not None:
            unfit = next((place for place, each in enumerate(batch) if not fits(each)), None)
            if unfit == 0:
                return batch[:1]
            batch = batch[:unfit]
        self._ledger.gave_out(batch[-1].seq + first - 1)
        return batch

    def _read(self, first: int, after: int, messages_max: int, bytes_max: int) -> list[Message]:
        rows = self._rows.read(
            max(first - 1 + after, self._ledger.owed), self._ledger.end_of(first), messages_max
        )
        batch: list[Message] = []
        size = 2  # the brackets
        for number, message_type, data, moment in rows:
            seq = number - first + 1
            size += len(data) + len(message_type) + _MESSAGE_OVERHEAD_BYTES
            size += 0 if moment is None else len(moment) + 10
            if batch and (size > bytes_max or seq != batch[-1].seq + 1):
                break
            stamp = moment if moment is not None else UNSET
            batch.append(Message(seq, message_type, Raw(data), stamp))
        return batch

    def settle(self, identity: str, seq: int) -> int:
        """Delete the messages of an id up to and including `seq`: they are in the stream.

        A seq beyond those assigned settles all of the id, and no message gets that id any more. If
        the disk refuses, this process treats the messages as gone all the same, and `append`,
        `begin` and `tend` try again.

        Returns:
            How many messages were deleted.

        Raises:
            OutboxError: the disk refused; the messages are still in the file.
        """
        with self._file.reading():
            first = self._rows.first_of(identity)
            if first is None:
                if identity == self._ledger.book.id and seq >= 1:
                    self._ledger.renew()
                return 0
            end = self._ledger.end_of(first)
            last = min(first + seq - 1, end - 1)
            none_before = self._rows.next_in(0, first) is None
        if first + seq > end and identity == self._ledger.book.id:
            self._ledger.renew()
        if none_before:
            self._ledger.owes(last)
        return self._forget(first, last)

    def _forget_owed(self) -> None:
        if self._ledger.owed > 0:
            self._forget(0, self._ledger.owed)

    def _forget(self, first: int, last: int) -> int:
        ledger = self._ledger
        # No sync is needed: a message that a power failure brings back keeps its (id, seq).
        with ledger.changing(synced=False):
            gone = ledger.forget(first, last)
        if last >= ledger.owed:
            ledger.owed = 0
        return gone

    def remove(self, number: int) -> bool:
        """Give up a single message, which can never be sent.

        Returns:
            Whether the message was there.

        Raises:
            OutboxError: the disk refused; nothing has changed.
        """
        with self._ledger.changing():
            return self._ledger.remove(number)

    # Keeping the file

    def tend(self) -> bool:
        """A bounded step of housekeeping: try again what the disk refused, drop what is too old,
        give free room back to the disk. Call it when little else happens.

        Returns:
            Whether there is more to do at once.

        Raises:
            OutboxError: the disk refused, or the file was removed or replaced.
        """
        self._file.check()
        self._forget_owed()
        self.expire()
        return self._file.shrink()

    def close(self) -> None:
        """Release the file. Safe to call twice."""
        with contextlib.suppress(OutboxError):  # a full or broken disk must not stop the closing
            self._forget_owed()
            for _ in range(_SHRINK_STEPS_MAX):
                if not self._file.shrink():
                    break
        self._file.close()

    def __len__(self) -> int:
        return self._ledger.book.messages
