"""Which slot each device was promised, and which slot it has used, as one node remembers.

This complements tickets, which any node can read. A device that comes back without its ticket gets
the slot that it was promised, and a ticket counts once. Slots are compared by their time, so a used
slot also invalidates every earlier ticket of its device.

The memory is bounded in number and in time: what is older than any valid ticket is forgotten.
"""

import math
from collections import OrderedDict


class Promises:
    """Slots by holder. Times in seconds of local time."""

    def __init__(self, *, entries_max: int, keep_s: float) -> None:
        """
        Args:
            entries_max: how many promised slots are remembered, and how many used ones. The oldest
                are forgotten.
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
        self._held.entries.pop(holder, None)
        self._spent.put(holder, slot_at, now)

    def restore(self, holder: bytes, slot_at: float, now: float) -> None:
        """`holder` was cut off before it was admitted: it has its slot again."""
        self._spent.entries.pop(holder, None)
        self._held.put(holder, slot_at, now)

    def forget(self, holder: bytes, until: float) -> None:
        """`holder` has no slot up to `until`; a later one stays its own."""
        slot_at = self._held.entries.get(holder)
        if slot_at is not None and slot_at <= until:
            del self._held.entries[holder]


class _Slots:
    """A bounded number of slots by holder, the oldest entry first."""

    __slots__ = ("_entries_max", "_keep_s", "_tidy_at", "entries")

    def __init__(self, entries_max: int, keep_s: float) -> None:
        self._entries_max = entries_max
        self._keep_s = keep_s
        self._tidy_at = -math.inf
        """When the oldest entry is to be forgotten, as of the last look at it."""
        self.entries: OrderedDict[bytes, float] = OrderedDict()

    def put(self, holder: bytes, slot_at: float, now: float) -> None:
        entries = self.entries
        if holder in entries:
            entries.move_to_end(holder)
        entries[holder] = slot_at
        if len(entries) > self._entries_max:
            entries.popitem(last=False)
        if now > self._tidy_at:
            self._tidy(now)

    def _tidy(self, now: float) -> None:
        """Forget old entries: at most two, so more go than are added, and no knock takes long."""
        entries = self.entries
        for _ in range(2):
            oldest = next(iter(entries), None)
            if oldest is None:
                break
            self._tidy_at = entries[oldest] + self._keep_s
            if self._tidy_at >= now:
                break
            del entries[oldest]
