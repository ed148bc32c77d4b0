"""The durable outbox: what the application sent and the gateway has not yet acknowledged.

When `append` returns, a message survives the process and the power. It then has two names:

- its *number*, which rises with each append to this file. It stays on this machine: it is what
  `Device.send` returns and what the callbacks speak of.
- its (*id*, *seq*) on the wire. Each opening of the file takes a new random id, and seq rises by
  one within an id. So (id, seq) never names two messages, whatever copy of the file comes back: a
  restored image, a clone, what a disk that lied about a sync still has. A message keeps its
  (id, seq) for as long as it may have been sent.

What the file held when it was opened may have been sent by an earlier process. What was added since
may have been sent once `read` has given it out.

Ids are drained in the order of their messages. `begin` says which is first, and the session that
says so in its `hello` reads and settles that id until it is empty.

Bounded in messages, bytes and age, message by message. At a bound the application chooses what
gives way: the new message (refused, the default) or the oldest ones (dropped, and counted).

Dropping behind messages that are on their way leaves a hole, and a session must not skip a seq.
What follows the hole gets a fresh id if it was never sent; otherwise `read` shows the hole, and
only a new session (its `hello` names the oldest seq) can pass it.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from msgspec import UNSET, Raw

from tidegate.bounds import DROP_SHARE, Excess, OutboxLimits, judge, oldest, overflow
from tidegate.elapsed import Stamp, Uptime, stamp_now, uptime
from tidegate.errors import OutboxError, OutboxFull
from tidegate.ledger import Entry, Ledger, Run
from tidegate.outbox_file import OutboxFile
from tidegate.outbox_rows import Rows
from tidegate.wire.frames import Message

__all__ = ["Entry", "Outbox", "OutboxLimits", "Run"]

_SHRINK_STEPS_MAX: Final = 64
"""In `close`: 256 MiB at most are given back."""
_MESSAGE_OVERHEAD_BYTES: Final = 64
"""At most what a message takes in a frame beside type, data and time."""


class Outbox:
    """One outbox file, owned by one process. Blocking; call it from one thread at a time.

    The plain numbers (`messages`, `bytes`, `dropped`, `next_number`, `settled`) may be read from
    any thread.
    """

    def __init__(
        self,
        path: Path | str,
        limits: OutboxLimits | None = None,
        *,
        clock: Callable[[], float] = time.time,
        uptime: Callable[[], Uptime] = uptime,
    ) -> None:
        """
        Args:
            path: of the file.
            limits: what it may hold.
            clock: Unix time in seconds; it may jump.
            uptime: time since boot; it does not jump.

        Raises:
            OutboxError: the file cannot be opened, is no outbox, or is open already.
        """
        self._limits = limits or OutboxLimits()
        self._clock = clock
        self._uptime = uptime
        now = uptime()
        self._file = OutboxFile(path, Stamp(0, now.boot, now.ms, int(clock() * 1000)))
        self._rows = Rows(self._file.database)
        try:
            with self._file.reading():
                state = self._rows.state()
                self._ledger = Ledger(self._file, self._rows, state)
        except OutboxError:
            self._file.close()
            raise
        self._features = state.features
        self._last_stamp = stamp_now(state.stamp, now, int(clock() * 1000))

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
        """Messages given up at a bound since the opening. Those on their way may be stored."""
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
    def gateway_has_features(self) -> bool:
        """Whether the gateways here have announced `features` in a `welcome` (durable)."""
        return self._features

    def remember_features(self, known: bool) -> None:
        """
        Raises:
            OutboxError: the disk refused; the present process remembers it nevertheless.
        """
        if known is not self._features:
            self._features = known
            with self._file.transaction(synced=False):
                self._rows.save_features(known)

    # Adding

    def append(self, entries: Sequence[Entry]) -> list[int | OutboxFull]:
        """Store `entries` durably in one commit, each judged by itself.

        Returns:
            For each its number, or the error that refuses it.

        Raises:
            OutboxError: the disk refused, or the file was removed or replaced; nothing is stored.
        """
        self._file.check()
        self._forget_owed()
        with self._ledger.changing():
            self._expire()
            verdicts = self._judge(entries)
            taken = [entry for entry, full in zip(entries, verdicts, strict=True) if full is None]
            first = self._ledger.book.next_number
            if taken:
                now = self._now()
                self._ledger.add(taken, self._make_room(taken), now.outbox_ms)
                self._rows.save_state(self._ledger.book.next_number, now)
                self._last_stamp = now
        numbers = iter(range(first, first + len(taken)))
        return [next(numbers) if full is None else full for full in verdicts]

    def _judge(self, entries: Sequence[Entry]) -> list[OutboxFull | None]:
        limits, book = self._limits, self._ledger.book
        if not limits.drops and self._too_old():
            return [self._full(f"{limits.age_max_s} s") for _ in entries]
        sizes = [len(entry.data) for entry in entries]
        bounds = judge(sizes, limits, messages=book.messages, size=book.bytes)
        return [None if bound is None else self._full(bound) for bound in bounds]

    def _full(self, bound: str) -> OutboxFull:
        return OutboxFull(f"outbox {self._file.path} is at its bound of {bound}")

    # Giving way

    def _make_room(self, entries: Sequence[Entry]) -> int:
        """Drop what has to give way to `entries` (nothing unless the limits say so).

        The oldest go first, those on their way only after all others, and of `entries` themselves
        only what does not fit an empty outbox.

        Returns:
            How many of `entries`, from the first, do not fit.
        """
        limits, book = self._limits, self._ledger.book
        sizes = [len(entry.data) for entry in entries]
        skipped = overflow(sizes, limits)
        excess = Excess(
            book.messages + len(sizes) - skipped - limits.messages_max,
            book.bytes + sum(sizes[skipped:]) - limits.bytes_max,
        )
        if excess:
            wanted = excess.with_a_tenth(limits)
            before = book.messages, book.bytes
            last, _left = oldest(self._rows.sizes_after(self._ledger.position), wanted)
            self._ledger.drop(self._ledger.position, last)
            excess = excess.less(before[0] - book.messages, before[1] - book.bytes)
        if excess:
            last, _left = oldest(self._rows.sizes_after(0), excess)
            self._ledger.drop(0, last)
        return skipped

    def _too_old(self) -> bool:
        if self._limits.age_max_s is None:
            return False
        row = self._rows.oldest_after(max(self._ledger.owed, self._held_to()))
        return row is not None and self._now().outbox_ms - row[1] > self._limits.age_max_s * 1000

    def _held_to(self) -> int:
        """Up to this number messages are on their way, and no age takes them back."""
        return self._ledger.position if self._limits.drops else 0

    def expire(self) -> int:
        """Drop what is over the age bound, if that is what the limits say.

        `append`, `begin` and `read` do so too. Call it at times, so that the bound holds while
        nothing else happens.

        Returns:
            How many messages that were.

        Raises:
            OutboxError: the disk refused; nothing has changed.
        """
        with self._file.reading():
            due = self._limits.drops and self._too_old()
        if not due:
            return 0
        before = self._ledger.book.dropped
        with self._ledger.changing(synced=False):
            self._expire()
        return self._ledger.book.dropped - before

    def _expire(self) -> None:
        """Drop what is too old, and what would be within a tenth of the bound."""
        age_max_s = self._limits.age_max_s
        if not self._limits.drops or age_max_s is None or not self._too_old():
            return
        young_ms = self._now().outbox_ms - int(age_max_s * 1000 * (1 - 1 / DROP_SHARE))
        held_to = last = self._held_to()
        for number, added_ms in self._rows.times_after(held_to):
            if added_ms >= young_ms:
                break
            last = number
        self._ledger.drop(held_to, last)

    # Sending

    def begin(self) -> Run:
        """What the next `hello` speaks for: the id of the oldest message, or without any the id of
        what is appended next. From now on nothing counts as on its way.

        Raises:
            OutboxError: the disk refused.
        """
        ledger = self._ledger
        ledger.session, ledger.position = None, 0
        # A full disk must not keep the outbox from being drained; `tend` reports it.
        with contextlib.suppress(OutboxError):
            self._forget_owed()
            self.expire()
        with self._file.reading():
            run = ledger.head(self._now().outbox_ms)
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

        What it returns counts as sent, with two exceptions. If the first is not `after` + 1, what
        was between was dropped, and only a new session can go on. If the first does not fit, it
        comes by itself: `remove` it.

        Args:
            identity: the id that `begin` named.
            after: the seq of the last message sent.
            messages_max: how many at most.
            bytes_max: of the frame they make; a message that is larger comes by itself.
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
        """Forget everything of an id up to and including `seq`: it is in the stream.

        A seq beyond what was given settles all of the id, and no message gets that id any more. If
        the disk refuses, this process treats the messages as gone all the same, and `append`,
        `begin` and `tend` try again.

        Returns:
            How many messages that were.

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
        # Without a sync: what a power failure brings back keeps its (id, seq) and is known.
        with ledger.changing(synced=False):
            gone = ledger.forget(first, last)
        if last >= ledger.owed:
            ledger.owed = 0
        return gone

    def remove(self, number: int) -> bool:
        """Give up a single message: one that can never be sent.

        Returns:
            Whether it was there.

        Raises:
            OutboxError: the disk refused; nothing has changed.
        """
        with self._ledger.changing():
            return self._ledger.remove(number)

    # Keeping the file

    def tend(self) -> bool:
        """Housekeeping, a bounded step of it: what the disk refused is tried again, what is too old
        is dropped, room that is free is given back. Call it at times when little happens.

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
        with contextlib.suppress(OutboxError):  # of a full or broken disk: closing goes on
            self._forget_owed()
            for _ in range(_SHRINK_STEPS_MAX):
                if not self._file.shrink():
                    break
        self._file.close()

    def __len__(self) -> int:
        return self._ledger.book.messages

    # Looking up

    def _now(self) -> Stamp:
        return stamp_now(self._last_stamp, self._uptime(), int(self._clock() * 1000))
