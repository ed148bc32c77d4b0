"""Which devices have commands waiting, in order, and when each command expires. Pure.

What is kept of an entry is its place, its id and its times, never its data: some 400 bytes. Nobody
tells a node that another one has deleted an entry. It finds out when it looks at the entry: for its
device, or once its time has passed.
"""

import heapq
from collections import deque
from collections.abc import Collection, Iterator
from typing import Final

from msgspec import Struct

from gateway.stream.queue.facts import DeviceKey

ENTRIES_MAX: Final = 100_000
"""Entries that a node keeps in mind. While there are more, the reader of the queue waits."""

_GONE_MAX: Final = 64
"""Entries that are gone and still in the order, beyond as many as are here."""


class Waiting(Struct, frozen=True, gc=False):
    """An entry of the queue."""

    seq: int
    """In the stream, which is the order in which commands are delivered."""
    id: str
    expires_at: float
    """Unix time."""
    queued_at: float = 0.0
    """When it was stored, as Unix time."""


class QueueIndex:
    """The entries of all devices."""

    def __init__(self, entries_max: int = ENTRIES_MAX) -> None:
        self._entries_max = entries_max
        self._devices: dict[DeviceKey, dict[int, Waiting]] = {}
        self._looks: list[tuple[float, int, DeviceKey]] = []
        """When an entry must be looked at, its sequence, and whose it is."""
        self._order: deque[tuple[DeviceKey, Waiting]] = deque()
        """As they came. The first one is still here; of the others, at most half are gone."""
        self._count = 0

    def __len__(self) -> int:
        """Entries of all devices."""
        return self._count

    @property
    def devices(self) -> int:
        """Devices that have entries."""
        return len(self._devices)

    @property
    def full(self) -> bool:
        """Whether no further entry may be added."""
        return self._count >= self._entries_max

    @property
    def oldest_at(self) -> float | None:
        """When the entry was stored that has waited longest, as Unix time."""
        return self._order[0][1].queued_at if self._order else None

    def __contains__(self, key: DeviceKey) -> bool:
        return key in self._devices

    def add(self, key: DeviceKey, waiting: Waiting) -> None:
        """An entry was read. Entries come in the order of their sequences."""
        entries = self._devices.setdefault(key, {})
        if waiting.seq not in entries:
            entries[waiting.seq] = waiting
            self._count += 1
            self._order.append((key, waiting))
            self.look_again(key, waiting.seq, waiting.expires_at)

    def remove(self, key: DeviceKey, seq: int) -> None:
        """An entry is deleted, or of no use."""
        entries = self._devices.get(key)
        if entries is not None and entries.pop(seq, None) is not None:
            self._count -= 1
            if not entries:
                del self._devices[key]
            self._forget_gone()

    def _forget_gone(self) -> None:
        order = self._order
        while order and not self._is_here(*order[0]):
            order.popleft()
        if len(order) > 2 * self._count + _GONE_MAX:
            self._order = deque(each for each in order if self._is_here(*each))

    def _is_here(self, key: DeviceKey, waiting: Waiting) -> bool:
        return self.find(key, waiting.seq) is waiting

    def find(self, key: DeviceKey, seq: int) -> Waiting | None:
        return self._devices.get(key, {}).get(seq)

    def next(self, key: DeviceKey, taken: Collection[str]) -> Waiting | None:
        """The first entry of a device whose id is not in `taken`."""
        for waiting in self._devices.get(key, {}).values():
            if waiting.id not in taken:
                return waiting
        return None

    def look_again(self, key: DeviceKey, seq: int, moment: float) -> None:
        """Have `due` name this entry once `moment` has passed, if it is still here then."""
        heapq.heappush(self._looks, (moment, seq, key))

    def due(self, now: float, most: int) -> Iterator[tuple[DeviceKey, Waiting]]:
        """The entries whose moment has passed, at most so many. Each is named once a moment."""
        while most and self._looks and self._looks[0][0] <= now:
            _moment, seq, key = heapq.heappop(self._looks)
            waiting = self.find(key, seq)
            if waiting is not None:
                most -= 1
                yield key, waiting
