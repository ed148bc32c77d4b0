"""How a lane publishes a batch: which kind, and how many messages at most. Pure."""

import math
from operator import attrgetter
from typing import Final

from gateway.stream.lanes.batch import Batch, Item, Kind, Pending, Strategy
from gateway.stream.lanes.standing import Standing

_ATOMIC_MIN: Final = 16
"""A smaller atomic batch costs as much as so many plain publishes: besides its syncs, the server
makes a store for it and removes it. Measured with fsync: with this bound, 2,000 msg/s have a p50 of
2 ms, without it 8 ms."""
_ATOMIC_LEAST: Final = 4
"""The bound where syncs take long (`SyncTimes`)."""
_SMALL: Final = 100
"""In a larger atomic batch, messages take more of the time than syncs do."""
_WEIGHT: Final = 0.3
"""Of the newest batch in a mean."""
_CUT_SHORT: Final = (Strategy.FAST, Strategy.LINKED)
_FAST_MAX: Final = 1_000
"""A fast or linked batch has no syncs for more messages to share, and it is settled message by
message when its answer is lost. So a larger one gains nothing and costs more to repeat."""
_UNLINKED_BATCHES: Final = 1_000
"""Batches without links after one whose link did not hold, because somebody else stores in the same
stream: a batch that is cut short is settled message by message."""

_device: Final = attrgetter("standing.device")


class SyncTimes:
    """Which is stored sooner: messages one by one, with a sync each, or as one atomic batch.

    Both take many times as long while the machine is busy, and not in the same proportion. Beside
    thousands of connections that end, 12 plain publishes were seen to take 40 ms, and atomic
    batches of 19 to 78 messages 8 to 20 ms.
    """

    __slots__ = ("_atomic_s", "_plain_s")

    def __init__(self) -> None:
        self._plain_s = 0.0
        self._atomic_s = 0.0

    def took(self, batch: Batch, took_s: float) -> None:
        """All messages of `batch` were stored after so many seconds."""
        if batch.kind is Kind.ROUND:
            self._plain_s = _mean(self._plain_s, took_s / batch.messages)
        elif batch.kind is Kind.ATOMIC and batch.messages <= _SMALL:
            self._atomic_s = _mean(self._atomic_s, took_s)

    @property
    def atomic_min(self) -> int:
        """The smallest atomic batch that pays, in messages."""
        if not (self._plain_s and self._atomic_s):
            return _ATOMIC_MIN
        pays = math.ceil(self._atomic_s / self._plain_s)
        return min(_ATOMIC_MIN, max(_ATOMIC_LEAST, pays))


def _mean(before: float, newest: float) -> float:
    return before + _WEIGHT * (newest - before) if before else newest


class Method:
    """Chooses the kind of each batch."""

    __slots__ = ("_unlinked", "_unsure", "strategy", "times")

    def __init__(self) -> None:
        self.strategy = Strategy.PLAIN
        """Plain until somebody knows what the server can do."""
        self._unsure: set[Standing] = set()
        self._unlinked = 0
        self.times = SyncTimes()
        """How long batches took."""

    def distrust(self, standing: Standing) -> None:
        """Messages of this outbox may be repeats: publish them so that duplicates show."""
        self._unsure.add(standing)

    @property
    def stores_one_by_one(self) -> bool:
        """Whether each batch is fast or linked now, because no message may be a repeat."""
        return self.strategy in _CUT_SHORT and not self._unsure

    def messages_max(self, limit: int) -> int:
        """How many messages a batch takes where the server takes `limit`."""
        return min(limit, _FAST_MAX) if self.strategy in _CUT_SHORT else limit

    def cut_short(self, kind: Kind) -> None:
        """A batch of this kind was not stored whole. If it was linked, use no links for a while."""
        if kind is Kind.LINKED:
            self._unlinked = _UNLINKED_BATCHES

    def kind_of(self, batch: Batch) -> Kind:
        """How to publish the messages of `batch`. If not as a linked batch, its runs are split."""
        if batch.messages <= 1:
            return Kind.SINGLE
        one_by_one = self.strategy in _CUT_SHORT and not self._may_repeat(batch.items)
        if one_by_one and self._may_link(batch.items):
            batch.items.sort(key=_device)
            return Kind.LINKED
        items = batch.split()
        if one_by_one:
            return Kind.FAST
        if self.strategy is Strategy.PLAIN:
            return Kind.ROUND
        if len(items) < self.times.atomic_min:
            devices = {item.standing.device for item in items}
            if len(devices) == len(items):
                return Kind.ROUND
        return Kind.ATOMIC

    def _may_link(self, items: list[Item]) -> bool:
        """Whether `items` may be linked, after those of one device are brought together.

        Messages that were published before do not go into a linked batch, and those of one device
        stand together there. So the message that a link names is of the same device or the last one
        of another, and whatever else stores these messages, a link that holds keeps their order.
        """
        if self.strategy is Strategy.FAST:
            return False
        if any(type(item) is Pending and item.repeated for item in items):
            return False
        if self._unlinked:
            self._unlinked -= 1
            return False
        return True

    def _may_repeat(self, items: list[Item]) -> bool:
        """Whether duplicates among `items` must show. Fast ingest skips duplicates silently, and
        they end a linked batch.
        """
        if self._unsure:
            self._unsure = {each for each in self._unsure if each.unsure}
        return bool(self._unsure) and any(item.standing in self._unsure for item in items)
