"""Counts the dead letters that wait: those that were not sent again and have not expired.

A stream can hold a million letters, so each costs some bytes here and not an object: of each kind
(stage and error) the sequences, when they were stored, and a flag, in stream order.
"""

from array import array
from bisect import bisect_left
from typing import Final, NamedTuple

KINDS_MAX: Final = 100
"""Kinds that are told apart; errors of databases and receivers are many."""
OTHER: Final = "other"
_COMPACT_MIN: Final = 1_024


class Waiting(NamedTuple):
    """Letters of one kind that wait."""

    stage: str
    error: str
    letters: int


class LetterTally:
    """Fed with letters in stream order, and with the facts that letters were sent again."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], _Kind] = {}
        self._last_seq = 0
        self._early: set[int] = set()

    def letter(self, seq: int, stage: str, error: str, stored_ns: int) -> None:
        """A letter is stored."""
        self._last_seq = seq
        if seq in self._early:
            self._early.discard(seq)
            return
        key = (stage, error)
        kind = self._kinds.get(key)
        if kind is None:
            if len(self._kinds) >= KINDS_MAX:
                key = (stage, OTHER)
            kind = self._kinds.setdefault(key, _Kind())
        kind.add(seq, stored_ns)

    def sent_again(self, seq: int) -> None:
        """The letter with this sequence was sent again. It may not have been read yet."""
        if seq > self._last_seq:
            self._early.add(seq)
            return
        for kind in self._kinds.values():
            if kind.sent_again(seq):
                return  # of no kind if it has expired

    def expired(self, first_seq: int) -> None:
        """The stream begins at this sequence now."""
        for kind in self._kinds.values():
            kind.expired(first_seq)
        self._early = {seq for seq in self._early if seq >= first_seq}

    def waiting(self) -> list[Waiting]:
        """How many letters of each kind wait; a kind stays listed when none does any more."""
        return [Waiting(*key, kind.waiting) for key, kind in self._kinds.items()]

    def oldest_ns(self) -> int | None:
        """When the oldest waiting letter was stored, Unix nanoseconds; None if none waits."""
        found = [ns for kind in self._kinds.values() if (ns := kind.oldest_ns()) is not None]
        return min(found, default=None)


class _Kind:
    """Letters of one stage and error."""

    def __init__(self) -> None:
        self._seqs = array("Q")
        self._stored_ns = array("Q")
        self._sent = bytearray()
        self._first = 0
        self.waiting = 0

    def add(self, seq: int, stored_ns: int) -> None:
        self._seqs.append(seq)
        self._stored_ns.append(stored_ns)
        self._sent.append(0)
        self.waiting += 1

    def sent_again(self, seq: int) -> bool:
        """Whether it is one of these letters."""
        place = bisect_left(self._seqs, seq, self._first)
        if place == len(self._seqs) or self._seqs[place] != seq:
            return False
        if not self._sent[place]:
            self._sent[place] = 1
            self.waiting -= 1
        return True

    def expired(self, first_seq: int) -> None:
        place = bisect_left(self._seqs, first_seq, self._first)
        self.waiting -= self._sent.count(0, self._first, place)
        self._first = place
        self._compact()

    def oldest_ns(self) -> int | None:
        place = self._sent.find(0, self._first)
        if place < 0:
            self._first = len(self._seqs)
            return None
        self._first = place
        return self._stored_ns[place]

    def _compact(self) -> None:
        """Give back the room of what has expired."""
        if self._first > max(_COMPACT_MIN, len(self._seqs) // 2):
            del self._seqs[: self._first]
            del self._stored_ns[: self._first]
            del self._sent[: self._first]
            self._first = 0
