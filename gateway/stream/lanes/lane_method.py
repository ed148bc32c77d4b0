"""How a lane publishes a batch: which kind, and how many messages at most. Pure."""

from typing import Final

from gateway.stream.lanes.batch import Kind, Pending, Strategy
from gateway.stream.lanes.standing import Standing

_ATOMIC_MIN: Final = 16
"""A smaller atomic batch costs as much as so many plain publishes: besides its syncs, the server
makes a store for it and removes it. Measured with fsync: with this bound, 2,000 msg/s have a p50 of
2 ms, without it 8 ms."""
_FAST_MAX: Final = 1_000
"""A fast batch has no syncs for more messages to share, and it is settled message by message when
its answer is lost. So a larger one gains nothing and costs more to repeat."""


class Method:
    """Chooses the kind of each batch."""

    __slots__ = ("_unsure", "strategy")

    def __init__(self) -> None:
        self.strategy = Strategy.PLAIN
        """Plain until somebody knows what the server can do."""
        self._unsure: set[Standing] = set()

    def distrust(self, standing: Standing) -> None:
        """Messages of this outbox may be repeats: publish them so that duplicates show."""
        self._unsure.add(standing)

    def messages_max(self, limit: int) -> int:
        """How many messages a batch takes where the server takes `limit`."""
        return min(limit, _FAST_MAX) if self.strategy is Strategy.FAST else limit

    def kind_of(self, items: list[Pending]) -> Kind:
        """How to publish `items`."""
        if len(items) <= 1:
            return Kind.SINGLE
        if self.strategy is Strategy.PLAIN:
            return Kind.ROUND
        if self.strategy is Strategy.FAST and not self._may_repeat(items):
            return Kind.FAST
        if len(items) < _ATOMIC_MIN:
            devices = {item.standing.device for item in items}
            if len(devices) == len(items):
                return Kind.ROUND
        return Kind.ATOMIC

    def _may_repeat(self, items: list[Pending]) -> bool:
        """Whether duplicates among `items` must show. Fast ingest skips duplicates silently."""
        if self._unsure:
            self._unsure = {each for each in self._unsure if each.unsure}
        return bool(self._unsure) and any(item.standing in self._unsure for item in items)
