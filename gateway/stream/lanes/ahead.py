"""What a lane sends while a batch is in flight, so that the server never waits for it. Pure.

- **Staged**: all but the last message of an atomic batch. Nothing of it is stored before the last
  one, the commit, which is sent when the batch in flight is settled. So it may hold messages of
  devices that have others in flight.
- **Following**: a whole fast or linked batch, which is stored as it comes. It takes messages only
  of devices that have none in flight: whatever becomes of one batch, the order of a device is not
  in the hands of two.
"""

from typing import Final

from gateway.stream.lanes.batch import Batch, Kind, Pending, Strategy
from gateway.stream.lanes.lane_method import Method
from gateway.stream.lanes.lane_waiting import BatchLimits, Waiting

EAGER_MESSAGES: Final = 250
"""So many messages are worth a write of their own while more are being read."""


class Ahead:
    """Takes from the queue of a lane what can be sent behind the batch in flight."""

    __slots__ = ("_limits", "_method", "_waiting", "following")

    def __init__(self, waiting: Waiting, method: Method, limits: BatchLimits) -> None:
        self._waiting = waiting
        self._method = method
        self._limits = limits
        self.following: Batch | None = None
        """Was sent whole behind the batch in flight, and will be in flight after it."""

    def can_take(self, in_flight: Batch) -> bool:
        """Whether so much waits that it is worth sending, and nothing must be sent before it."""
        waiting = self._waiting
        if waiting.queued < EAGER_MESSAGES or waiting.retry or waiting.aside.by_device:
            return False
        if self.following is not None:
            return False
        if self._method.strategy is Strategy.ATOMIC:
            return waiting.staged is None or not waiting.staged.complete
        return in_flight.stored_one_by_one and self._method.stores_one_by_one

    def stage(self, batch: Batch, dropped: list[Pending]) -> tuple[Batch | None, int]:
        """Send ahead what the staged batch can take, or begin a new one, which is `batch`.

        Returns:
            The staged batch, and the place of the first message to send now; those up to `sent`
            are to be sent.
        """
        waiting = self._waiting
        batch = waiting.staged or batch
        batch.kind = Kind.ATOMIC
        first = batch.sent
        waiting.fill(batch, waiting.queue, dropped, self._limits.messages_max, ahead=True)
        if not batch.items:
            return None, 0
        batch.sent = len(batch.items) - 1  # the last one will be the commit
        waiting.staged = batch
        return batch, first

    def follow(self, batch: Batch, in_flight: Batch, dropped: list[Pending]) -> Batch | None:
        """Fill `batch`, which is to be sent whole, if that gives enough messages."""
        waiting = self._waiting
        messages_max = self._method.messages_max(self._limits.messages_max)
        waiting.fill_beside(batch, in_flight.devices, dropped, messages_max)
        if batch.messages < EAGER_MESSAGES:
            waiting.give_back(batch)
            return None
        batch.kind = self._method.kind_of(batch)
        self.following = batch
        return batch
