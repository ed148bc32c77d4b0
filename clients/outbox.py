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
import dataclasses
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from msgspec import UNSET, Raw

from clients.bounds import DROP_SHARE, Excess, OutboxLimits, judge, oldest, overflow
from clients.elapsed import Stamp, Uptime, stamp_now, uptime
from clients.errors import OutboxError, OutboxFull
from clients.outbox_file import OutboxFile
from clients.outbox_rows import Rows
from gateway.session.frames import Message

__all__ = ["Entry", "Outbox", "OutboxLimits", "Run"]

_SHRINK_STEPS_MAX: Final = 64
"""In `close`: 256 MiB at most are given back."""
_MESSAGE_OVERHEAD_BYTES: Final = 64
"""At most what a message takes in a frame beside type, data and time."""


class Entry(NamedTuple):
    """A message as the application gave it. `time` is RFC 3339 or None."""

    type: str
    data: bytes
    time: str | None


class Run(NamedTuple):
    """What one `hello` speaks for: the messages of one id."""

    id: str
    oldest: int
    """The oldest unacknowledged seq; the next to be given if there is none."""
    last: int
    """The highest seq that was ever given under this id, as far as this file knows."""
    sent: int
    """The highest seq that may have been sent; 0 if none."""
    age_ms: int
    """How long the oldest message has waited, at least; see `clients.elapsed`."""
    first: int
    """The number of seq 1."""

    def number(self, seq: int) -> int:
        """The number of the message which is `seq` on the wire."""
        return self.first + seq - 1


@dataclass(slots=True)
class _Book:
    """What is known without the disk; copied before a transaction, put back if that fails."""

    id: str
    first: int
    """Number of seq 1 of `id`, the id of what is appended next."""
    saved: bool
    """Whether `id` is in the file: it comes with its first message."""
    next_number: int
    messages: int
    bytes: int
    dropped: int = 0


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
        self.settled = 0
        """Every message up to this number has left the outbox."""
        self._own_from: int
        """The first number of this opening."""
        self._sent_to = 0
        """The highest number that `read` has given out since the opening."""
        self._session: int | None = None
        """The number of seq 1 of the id which the session drains."""
        self._position = 0
        """The highest number that the session has settled or `read` has given out to it."""
        self._owed = 0
        """Up to this number all is acknowledged, though the disk refused to delete it so far."""
        try:
            with self._file.reading():
                self._load()
        except OutboxError:
            self.close()
            raise

    def _load(self) -> None:
        state = self._rows.state()
        self._last_stamp = state.stamp
        self._last_stamp = self._now()
        self._features = state.features
        number = self._own_from = state.next_number
        self._book = _Book(_fresh_id(), number, False, number, state.messages, state.bytes)
        self._count_settled()

    @property
    def messages(self) -> int:
        """Messages in the file."""
        return self._book.messages

    @property
    def bytes(self) -> int:
        """Bytes of `data` in the file."""
        return self._book.bytes

    @property
    def dropped(self) -> int:
        """Messages given up at a bound since the opening. Those on their way may be stored."""
        return self._book.dropped

    @property
    def next_number(self) -> int:
        """The number of the next message."""
        return self._book.next_number

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
        with self._changing():
            self._expire()
            verdicts = self._judge(entries)
            taken = [entry for entry, full in zip(entries, verdicts, strict=True) if full is None]
            first = self._book.next_number
            if taken:
                skipped = self._make_room(taken)
                self._insert(taken, skipped)
        numbers = iter(range(first, first + len(taken)))
        return [next(numbers) if full is None else full for full in verdicts]

    def _judge(self, entries: Sequence[Entry]) -> list[OutboxFull | None]:
        limits, book = self._limits, self._book
        if not limits.drops and self._too_old():
            return [self._full(f"{limits.age_max_s} s") for _ in entries]
        sizes = [len(entry.data) for entry in entries]
        bounds = judge(sizes, limits, messages=book.messages, size=book.bytes)
        return [None if bound is None else self._full(bound) for bound in bounds]

    def _full(self, bound: str) -> OutboxFull:
        return OutboxFull(f"outbox {self._file.path} is at its bound of {bound}")

    def _insert(self, entries: Sequence[Entry], skipped: int) -> None:
        """Add `entries`; the first `skipped` have given way to the others before they came in."""
        book = self._book
        if skipped:
            book.dropped += skipped
            book.next_number += skipped
            self._bridge(book.next_number)
        stamp = self._now()
        if not book.saved:
            if book.first != book.next_number:
                self._renew()  # a session may know the old one, with other numbers
            book.saved = True
            self._rows.add_id(book.first, book.id)
        kept = entries[skipped:]
        self._rows.add(
            ((number, *entry) for number, entry in enumerate(kept, book.next_number)),
            stamp.outbox_ms,
        )
        book.next_number += len(kept)
        book.messages += len(kept)
        book.bytes += sum(len(entry.data) for entry in kept)
        self._rows.save_state(book.next_number, stamp)
        self._last_stamp = stamp

    @contextlib.contextmanager
    def _changing(self, *, synced: bool = True) -> Iterator[None]:
        """A transaction that puts back what is known if the disk refuses it."""
        before = dataclasses.replace(self._book)
        try:
            with self._file.transaction(synced=synced):
                yield
        except BaseException:
            # A commit that failed may still be found on the disk after a crash. So what it gave is
            # never given again: neither its numbers nor, as the next id is a fresh one, its seqs.
            given_to = self._book.next_number
            self._book = before
            if given_to > before.next_number:
                before.next_number = given_to
                self._renew()
            raise
        with self._file.reading():
            self._count_settled()

    def _renew(self) -> None:
        """What is appended next gets a fresh id."""
        book = self._book
        book.id, book.first, book.saved = _fresh_id(), book.next_number, False

    # Giving way

    def _make_room(self, entries: Sequence[Entry]) -> int:
        """Drop what has to give way to `entries` (nothing unless the limits say so).

        The oldest go first, those on their way only after all others, and of `entries` themselves
        only what does not fit an empty outbox.

        Returns:
            How many of `entries`, from the first, do not fit.
        """
        limits, book = self._limits, self._book
        sizes = [len(entry.data) for entry in entries]
        skipped = overflow(sizes, limits)
        excess = Excess(
            book.messages + len(sizes) - skipped - limits.messages_max,
            book.bytes + sum(sizes[skipped:]) - limits.bytes_max,
        )
        if excess:
            wanted = excess.with_a_tenth(limits)
            before = book.messages, book.bytes
            last, _left = oldest(self._rows.sizes_after(self._position), wanted)
            self._drop(self._position, last)
            excess = excess.less(before[0] - book.messages, before[1] - book.bytes)
        if excess:
            last, _left = oldest(self._rows.sizes_after(0), excess)
            self._drop(0, last)
        return skipped

    def _drop(self, after: int, last: int) -> None:
        if last > after:
            self._book.dropped += self._delete(after, last)
            self._bridge(last + 1)

    def _bridge(self, number: int) -> None:
        """What is directly before `number` is gone. If a session drains its id, or earlier messages
        of it are there, what follows gets a fresh id, unless it may have been sent.
        """
        owner = self._rows.owner(number - 1)
        if owner is None or owner[0] < self._own_from or number <= self._sent_to:
            return
        first, end = owner[0], self._end_of(owner[0])
        if self._session != first and self._rows.next_in(first, number) is None:
            return
        following = self._rows.next_in(number, end)
        current = self._book.saved and first == self._book.first
        if following is not None:
            fresh = _fresh_id()
            self._rows.add_id(following, fresh)
            if current:
                self._book.id, self._book.first = fresh, following
        elif current:
            self._renew()

    def _too_old(self) -> bool:
        if self._limits.age_max_s is None:
            return False
        row = self._rows.oldest_after(max(self._owed, self._held_to()))
        return row is not None and self._now().outbox_ms - row[1] > self._limits.age_max_s * 1000

    def _held_to(self) -> int:
        """Up to this number messages are on their way, and no age takes them back."""
        return self._position if self._limits.drops else 0

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
        before = self._book.dropped
        with self._changing(synced=False):
            self._expire()
        return self._book.dropped - before

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
        self._drop(held_to, last)

    # Sending

    def begin(self) -> Run:
        """What the next `hello` speaks for: the id of the oldest message, or without any the id of
        what is appended next. From now on nothing counts as on its way.

        Raises:
            OutboxError: the disk refused.
        """
        self._session, self._position = None, 0
        # A full disk must not keep the outbox from being drained; `tend` reports it.
        with contextlib.suppress(OutboxError):
            self._forget_owed()
            self.expire()
        with self._file.reading():
            run = self._head()
        self._session, self._position = run.first, run.number(run.oldest) - 1
        return run

    def _head(self) -> Run:
        book = self._book
        row = self._rows.oldest_after(self._owed)
        if row is None:
            given = book.next_number - book.first
            sent = max(0, self._sent_to - book.first + 1)
            return Run(book.id, given + 1, given, sent, 0, book.first)
        number, added_ms = row
        owner = self._rows.owner(number)
        assert owner is not None, "a message without an id"
        first, identity = owner
        end = self._end_of(first)
        if self._book.saved and first == self._book.first:
            last = end - 1
        else:
            last = self._rows.last_in(number, end) or number
        sent_to = last if first < self._own_from else min(last, max(self._sent_to, first - 1))
        return Run(
            identity,
            number - first + 1,
            last - first + 1,
            sent_to - first + 1,
            max(0, self._now().outbox_ms - added_ms),
            first,
        )

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
        self._position = max(self._position, batch[-1].seq + first - 1)
        self._sent_to = max(self._sent_to, self._position)
        return batch

    def _read(self, first: int, after: int, messages_max: int, bytes_max: int) -> list[Message]:
        rows = self._rows.read(
            max(first - 1 + after, self._owed), self._end_of(first), messages_max
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
                if identity == self._book.id and seq >= 1:
                    self._renew()
                return 0
            end = self._end_of(first)
            last = min(first + seq - 1, end - 1)
            none_before = self._rows.next_in(0, first) is None
        if first + seq > end and identity == self._book.id:
            self._renew()
        if none_before:
            self._owed = max(self._owed, last)
            self.settled = max(self.settled, last)
        return self._forget(first, last)

    def _forget_owed(self) -> None:
        if self._owed > 0:
            self._forget(0, self._owed)

    def _forget(self, first: int, last: int) -> int:
        # Without a sync: what a power failure brings back keeps its (id, seq) and is known.
        with self._changing(synced=False):
            gone = self._delete(first - 1, last)
            book = self._book
            head = self._rows.next_in(0, book.next_number)
            owner = self._rows.owner(head) if head is not None else None
            self._rows.delete_ids_before(owner[0] if owner is not None else book.first)
        if last >= self._owed:
            self._owed = 0
        return gone

    def remove(self, number: int) -> bool:
        """Give up a single message: one that can never be sent.

        Returns:
            Whether it was there.

        Raises:
            OutboxError: the disk refused; nothing has changed.
        """
        with self._changing():
            there = self._delete(number - 1, number) > 0
            if there:
                self._bridge(number + 1)
        return there

    def _delete(self, after: int, last: int) -> int:
        gone, size = self._rows.delete(after, last)
        self._book.messages -= gone
        self._book.bytes -= size
        return gone

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
        return self._book.messages

    # Looking up

    def _now(self) -> Stamp:
        return stamp_now(self._last_stamp, self._uptime(), int(self._clock() * 1000))

    def _count_settled(self) -> None:
        number = self._rows.next_in(self._owed + 1, self._book.next_number)
        self.settled = (number if number is not None else self._book.next_number) - 1

    def _end_of(self, first: int) -> int:
        """The number after the last of the id that begins with number `first`."""
        following = self._rows.next_first(first)
        return self._book.next_number if following is None else following


def _fresh_id() -> str:
    return secrets.token_hex(8)
