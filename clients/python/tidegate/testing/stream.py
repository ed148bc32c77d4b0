"""What the gateway of a test has stored, what it has rejected, and what still waits."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from msgspec import UNSET

from tidegate.wire import frames


class StoredMessage(NamedTuple):
    """A message in the stream."""

    type: str
    data: Any
    time: str | None


class RejectedMessage(NamedTuple):
    """A message in the dead letters."""

    type: str
    data: Any
    error: str


Rule = Callable[[StoredMessage], str | None]
"""For a message the `error` with which it is rejected, or None."""


class Stream:
    """Stores each message once, however often it comes."""

    def __init__(self) -> None:
        self.stored: list[StoredMessage] = []
        self.rejected: list[RejectedMessage] = []
        self.rule: Rule | None = None
        self._settled: dict[str, int] = {}

    def settled(self, outbox: str) -> int:
        """The highest seq of an outbox that is settled, 0 if none is."""
        return self._settled.get(outbox, 0)

    def skip_to(self, outbox: str, seq: int) -> None:
        """The device has nothing up to `seq` any more."""
        self._settled[outbox] = max(seq, self.settled(outbox))

    def take(self, outbox: str, message: frames.Message) -> frames.Reject | None:
        """Settle a message: store or reject it.

        Returns:
            What the device must hear if it was rejected.
        """
        self._settled[outbox] = message.seq
        time = None if message.time is UNSET else message.time
        taken = StoredMessage(message.type, json.loads(bytes(message.data)), time)
        error = self.rule(taken) if self.rule is not None else None
        if error is None:
            self.stored.append(taken)
            return None
        self.rejected.append(RejectedMessage(taken.type, taken.data, error))
        return frames.Reject(message.seq, error, "rejected by the test")
