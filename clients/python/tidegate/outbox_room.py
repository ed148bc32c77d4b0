"""What an outbox holds at most: which messages are refused, and which give way. See `bounds`."""

from collections.abc import Sequence

from tidegate.bounds import DROP_SHARE, Excess, OutboxLimits, judge, oldest, overflow
from tidegate.elapsed import OutboxTime
from tidegate.errors import OutboxFull
from tidegate.ledger import Entry, Ledger


class Room:
    """Keeps one outbox within its limits. Each method runs inside a transaction of the ledger."""

    def __init__(self, limits: OutboxLimits, ledger: Ledger, time: OutboxTime, name: str) -> None:
        """
        Args:
            limits: what the outbox may hold.
            ledger: its messages.
            time: its time.
            name: what errors call it.
        """
        self._limits = limits
        self._ledger = ledger
        self._time = time
        self._name = name

    def judge(self, entries: Sequence[Entry]) -> list[OutboxFull | None]:
        """For each of `entries` the error that refuses it, or None."""
        limits, book = self._limits, self._ledger.book
        if not limits.drops and self._too_old():
            return [self._full(f"{limits.age_max_s} s") for _ in entries]
        sizes = [len(entry.data) for entry in entries]
        bounds = judge(sizes, limits, messages=book.messages, size=book.bytes)
        return [None if bound is None else self._full(bound) for bound in bounds]

    def _full(self, bound: str) -> OutboxFull:
        return OutboxFull(f"outbox {self._name} is at its bound of {bound}")

    def make(self, entries: Sequence[Entry]) -> int:
        """Drop what must give way to `entries`: nothing unless the limits say so.

        The oldest messages go first, those on their way only after all others, and of `entries`
        themselves only what does not fit an empty outbox.

        Returns:
            How many of `entries`, from the first, do not fit.
        """
        limits, ledger = self._limits, self._ledger
        book = ledger.book
        sizes = [len(entry.data) for entry in entries]
        skipped = overflow(sizes, limits)
        excess = Excess(
            book.messages + len(sizes) - skipped - limits.messages_max,
            book.bytes + sum(sizes[skipped:]) - limits.bytes_max,
        )
        if excess:
            wanted = excess.with_a_tenth(limits)
            before = book.messages, book.bytes
            last, _left = oldest(ledger.rows.sizes_after(ledger.position), wanted)
            ledger.drop(ledger.position, last)
            excess = excess.less(before[0] - book.messages, before[1] - book.bytes)
        if excess:
            last, _left = oldest(ledger.rows.sizes_after(0), excess)
            ledger.drop(0, last)
        return skipped

    @property
    def has_expired(self) -> bool:
        """Whether messages are over the age bound and must be dropped."""
        return self._limits.drops and self._too_old()

    def expire(self) -> None:
        """Drop the messages that are too old, and those within a tenth of the bound."""
        age_max_s = self._limits.age_max_s
        if age_max_s is None or not self.has_expired:
            return
        young_ms = self._time.now().outbox_ms - int(age_max_s * 1000 * (1 - 1 / DROP_SHARE))
        held_to = last = self._held_to()
        for number, added_ms in self._ledger.rows.times_after(held_to):
            if added_ms >= young_ms:
                break
            last = number
        self._ledger.drop(held_to, last)

    def _too_old(self) -> bool:
        if self._limits.age_max_s is None:
            return False
        row = self._ledger.rows.oldest_after(max(self._ledger.owed, self._held_to()))
        age_max_ms = self._limits.age_max_s * 1000
        return row is not None and self._time.now().outbox_ms - row[1] > age_max_ms

    def _held_to(self) -> int:
        """Up to this number messages are on their way, and no age takes them back."""
        return self._ledger.position if self._limits.drops else 0
