"""Which number is which (id, seq), what may have been sent, and what is settled.

Each opening of an outbox file takes a new random id for the messages that it adds. An earlier
process may have sent the messages that the file held before. Messages that were added since may
have been sent once `read` has returned them. A message that may have been sent keeps its (id, seq).

After a crash, a failed commit may be found on the disk all the same. So its numbers are never used
again, and neither are its seqs, because the next message gets a fresh id.
"""

import contextlib
import dataclasses
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tidegate.outbox_file import OutboxFile
from tidegate.outbox_rows import Rows, State


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
    """The highest seq that was ever assigned under this id, as far as this file knows."""
    sent: int
    """The highest seq that may have been sent; 0 if none."""
    age_ms: int
    """How long the oldest message has waited, at least; see `tidegate.elapsed`."""
    first: int
    """The number of seq 1."""

    def number(self, seq: int) -> int:
        """The number of the message which is `seq` on the wire."""
        return self.first + seq - 1


@dataclass(slots=True)
class Book:
    """What is known without the disk. A copy is kept before a transaction, and restored if it
    fails.
    """

    id: str
    first: int
    """The number of seq 1 of `id`, which is the id of the next message."""
    saved: bool
    """Whether `id` is in the file: it is saved with its first message."""
    next_number: int
    messages: int
    bytes: int
    dropped: int = 0


class Ledger:
    """The numbers of one open outbox file. Its changes are transactions of the file."""

    def __init__(self, file: OutboxFile, rows: Rows, state: State) -> None:
        self._file = file
        self.rows = rows
        number = state.next_number
        self.own_from = number
        """The first number of this opening."""
        self.book = Book(_fresh_id(), number, False, number, state.messages, state.bytes)
        self.sent_to = 0
        """The highest number that was read for sending since the opening."""
        self.session: int | None = None
        """The number of seq 1 of the id that the session sends."""
        self.position = 0
        """The highest number that the session has settled, or that was read for it."""
        self.owed = 0
        """Messages up to this number are acknowledged, although the disk has not deleted them
        yet."""
        self.settled = 0
        """Every message up to this number has left the outbox."""
        self._count_settled()

    @contextlib.contextmanager
    def changing(self, *, synced: bool = True) -> Iterator[None]:
        """A transaction; if the disk refuses it, the book is restored.

        Raises:
            OutboxError: the disk refused; nothing has changed.
        """
        before = dataclasses.replace(self.book)
        try:
            with self._file.transaction(synced=synced):
                yield
        except BaseException:  # whatever ended the block, the file has undone it, so the book must
            given_to = self.book.next_number
            self.book = before
            if given_to > before.next_number:
                before.next_number = given_to
                self.renew()
            raise
        with self._file.reading():
            self._count_settled()

    def renew(self) -> None:
        """The next message gets a fresh id."""
        book = self.book
        book.id, book.first, book.saved = _fresh_id(), book.next_number, False

    # Within `changing`

    def add(self, entries: Sequence[Entry], skipped: int, added_ms: int) -> None:
        """Add `entries` without the first `skipped`, which give way to the others."""
        book = self.book
        if skipped:
            book.dropped += skipped
            book.next_number += skipped
            self._bridge(book.next_number)
        if not book.saved:
            if book.first != book.next_number:
                self.renew()  # a session may know the old id, with other numbers
            book.saved = True
            self.rows.add_id(book.first, book.id)
        kept = entries[skipped:]
        numbered = ((number, *entry) for number, entry in enumerate(kept, book.next_number))
        self.rows.add(numbered, added_ms)
        book.next_number += len(kept)
        book.messages += len(kept)
        book.bytes += sum(len(entry.data) for entry in kept)

    def drop(self, after: int, last: int) -> None:
        """Give up the messages in (after, last]."""
        if last > after:
            self.book.dropped += self.delete(after, last)
            self._bridge(last + 1)

    def remove(self, number: int) -> bool:
        """Delete one message; whether it was there."""
        there = self.delete(number - 1, number) > 0
        if there:
            self._bridge(number + 1)
        return there

    def forget(self, first: int, last: int) -> int:
        """Delete the messages in [first, last], which are settled, and ids that are empty now."""
        gone = self.delete(first - 1, last)
        head = self.rows.next_in(0, self.book.next_number)
        owner = self.rows.owner(head) if head is not None else None
        self.rows.delete_ids_before(owner[0] if owner is not None else self.book.first)
        return gone

    def delete(self, after: int, last: int) -> int:
        gone, size = self.rows.delete(after, last)
        self.book.messages -= gone
        self.book.bytes -= size
        return gone

    def _bridge(self, number: int) -> None:
        """The message directly before `number` is gone, which may leave a hole in its id. If a
        session sends this id, or earlier messages of it are left, the messages behind the hole get
        a fresh id, unless they may have been sent.
        """
        owner = self.rows.owner(number - 1)
        if owner is None or owner[0] < self.own_from or number <= self.sent_to:
            return
        first, end = owner[0], self.end_of(owner[0])
        if self.session != first and self.rows.next_in(first, number) is None:
            return
        following = self.rows.next_in(number, end)
        current = self.book.saved and first == self.book.first
        if following is not None:
            fresh = _fresh_id()
            self.rows.add_id(following, fresh)
            if current:
                self.book.id, self.book.first = fresh, following
        elif current:
            self.renew()

    # Looking up

    def head(self, now_ms: int) -> Run:
        """The run of the oldest message; without messages the run of the current id."""
        book = self.book
        row = self.rows.oldest_after(self.owed)
        if row is None:
            given = book.next_number - book.first
            sent = max(0, self.sent_to - book.first + 1)
            return Run(book.id, given + 1, given, sent, 0, book.first)
        number, added_ms = row
        owner = self.rows.owner(number)
        assert owner is not None, "a message without an id"
        first, identity = owner
        end = self.end_of(first)
        if book.saved and first == book.first:
            last = end - 1
        else:
            last = self.rows.last_in(number, end) or number
        sent_to = last if first < self.own_from else min(last, max(self.sent_to, first - 1))
        return Run(
            identity,
            number - first + 1,
            last - first + 1,
            sent_to - first + 1,
            max(0, now_ms - added_ms),
            first,
        )

    def end_of(self, first: int) -> int:
        """The number after the last of the id that begins with number `first`."""
        following = self.rows.next_first(first)
        return self.book.next_number if following is None else following

    def gave_out(self, number: int) -> None:
        """The session has read everything up to `number`."""
        self.position = max(self.position, number)
        self.sent_to = max(self.sent_to, self.position)

    def owes(self, number: int) -> None:
        """Everything up to `number` is acknowledged."""
        self.owed = max(self.owed, number)
        self.settled = max(self.settled, number)

    def _count_settled(self) -> None:
        number = self.rows.next_in(self.owed + 1, self.book.next_number)
        self.settled = (number if number is not None else self.book.next_number) - 1


def _fresh_id() -> str:
    return secrets.token_hex(8)
