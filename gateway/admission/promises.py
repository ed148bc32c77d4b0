"""Which slot each device was promised, and which slot it has used, as one node remembers.

This complements tickets, which any node can read. A device that comes back without its ticket gets
the slot that it was promised, and a ticket counts once. Slots are compared by their time, so a used
slot also invalidates every earlier ticket of its device.

The memory is bounded in number and in time: what is older than any valid ticket is forgotten.
"""

import math
from collections import deque


class Promises:
    """Slots by holder. Times in seconds of local time."""

    def __init__(self, *, entries_max: int, keep_s: float) -> None:
        """
        Args:
            entries_max: of how many promises, and of how many uses, a slot is remembered. The
                oldest are forgotten.
            keep_s: how long after its slot a promise or a ticket can still count.
        """
        self._held = _Slots(entries_max, keep_s)
        self._spent = _Slots(entries_max, keep_s)
        self.hold = self._held.put
        """`hold(holder, slot_at, now)`: promise `holder` the slot at `slot_at`, and no other."""
        self.slot_of = self._held.entries.get
        """The slot that a device was promised, as far as this node knows, or None."""
        self.used_slot_of = self._spent.entries.get
        """The slot that a device has used, or None: no ticket for it, or an earlier one, counts."""

    def __len__(self) -> int:
        """How many entries there are."""
        return len(self._held.entries) + len(self._spent.entries)

    def spend(self, holder: bytes, slot_at: float, now: float) -> None:
        """`holder` uses its slot: no ticket for this slot, or an earlier one, counts again."""
        self._held.take_out(holder)
        self._spent.put(holder, slot_at, now)

    def restore(self, holder: bytes, slot_at: float, now: float) -> None:
        """`holder` was cut off before it was admitted: it has its slot again."""
        self._spent.take_out(holder)
        self._held.put(holder, slot_at, now)

    def forget(self, holder: bytes, until: float) -> None:
        """`holder` has no slot up to `until`; a later one stays its own."""
        slot_at = self._held.entries.get(holder)
        if slot_at is not None and slot_at <= until:
            self._held.take_out(holder)


class _Slots:
    """A bounded number of slots by holder. What was put first is forgotten first.

    This is a dictionary and a queue. An `OrderedDict` of a size that no cache holds takes longer:
    for each entry that comes and each that goes, it reads and writes more memory at random.
    """

    __slots__ = ("_again", "_entries_max", "_keep_s", "_queue", "_tidy_at", "entries")

    def __init__(self, entries_max: int, keep_s: float) -> None:
        self._entries_max = entries_max
        self._keep_s = keep_s
        self._tidy_at = -math.inf
        """When the oldest entry is to be forgotten, as of the last look at it."""
        self.entries: dict[bytes, float | None] = {}
        """A holder whose slot was taken out has None, because it is still in the queue."""
        self._queue: deque[bytes] = deque()
        """Holders in the order of their puts, the oldest put first."""
        self._again: dict[bytes, int] = {}
        """How often a holder is in the queue once more, after the first time."""

    def put(self, holder: bytes, slot_at: float, now: float) -> None:
        entries = self.entries
        if holder in entries:
            self._again[holder] = self._again.get(holder, 0) + 1
        entries[holder] = slot_at
        self._queue.append(holder)
        if len(self._queue) > self._entries_max:
            self._forget_oldest()
        if now > self._tidy_at:
            self._tidy(now)

    def take_out(self, holder: bytes) -> None:
        """`holder` has no slot here any more."""
        if holder in self.entries:
            self.entries[holder] = None

    def _forget_oldest(self) -> None:
        """The oldest put counts no more. If its holder was not put again, neither does its slot."""
        holder = self._queue.popleft()
        again = self._again.pop(holder, 0)
        if not again:
            del self.entries[holder]
        elif again > 1:
            self._again[holder] = again - 1

    def _tidy(self, now: float) -> None:
        """Forget old entries: at most two, so more go than are added, and no knock takes long."""
        for _ in range(2):
            if not self._queue:
                break
            slot_at = self.entries[self._queue[0]]
            if slot_at is not None:
                self._tidy_at = slot_at + self._keep_s
                if self._tidy_at >= now:
                    break
            self._forget_oldest()
