"""Which messages are traced: a share of them, whoever starts the trace. Pure.

- Each message is a toss of a coin with the operator's ratio; each hit allows one traced message.
  What is drawn is the number of messages until the next hit, which has the same distribution.
- A device that has started a trace uses an allowed one, if there is any. So devices that trace
  everything cannot make the gateway trace more than its share.
- While enough is kept for devices (`KEPT_MAX`), a hit traces the message itself.
- `per_s_max` bounds what is traced a second, whatever the ratio.
"""

import math
import random
from collections.abc import Callable
from typing import Final

from msgspec import UNSET, UnsetType

from tidegate.wire.traceparent import Traceparent, read_traceparent

KEPT_MAX: Final = 16
"""Traced messages that are kept for devices which start traces. At the start all are there."""


class Ids:
    """Makes random ids. An id of zeros is invalid."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def trace_id(self) -> bytes:
        return (self._rng.getrandbits(128) or 1).to_bytes(16, "big")

    def span_id(self) -> bytes:
        return (self._rng.getrandbits(64) or 1).to_bytes(8, "big")


class Sampling:
    """The share of one node."""

    def __init__(
        self, ratio: float, per_s_max: float, *, rng: random.Random, clock: Callable[[], float]
    ) -> None:
        """
        Args:
            ratio: share of the messages that are traced, above 0 and at most 1.
            per_s_max: messages that are traced a second, at most.
            rng: source of the choice and of the ids.
            clock: monotonic seconds.
        """
        self._ratio = ratio
        self._rng = rng
        self._per_s_max = per_s_max
        self._burst = max(1.0, per_s_max)
        self.ids = Ids(rng)
        self._clock = clock
        self._kept = KEPT_MAX
        self._credit = self._burst
        self._counted_at = clock()

    def until_hit(self) -> int:
        """Draw how many messages it takes until one is a hit; 1 if it is the next one."""
        if self._ratio >= 1:
            return 1
        # The inverse of the geometric distribution; 1 - random() is never 0.
        return 1 + int(math.log(1 - self._rng.random()) / math.log1p(-self._ratio))

    def choose(self, asked: str | UnsetType, hit: bool) -> Traceparent | None:
        """Decide on one message that is a hit, or whose device asks.

        Args:
            asked: the device's traceparent, if it sent one.
            hit: the outcome of the toss.

        Returns:
            The parent of the gateway's span if the message is traced; its span id is empty if the
            trace begins here.
        """
        was_full = self._kept >= KEPT_MAX
        if hit and not was_full:
            self._kept += 1
        if self._kept < 1:
            return None
        parent = read_traceparent(asked) if asked is not UNSET else None
        if parent is not None and not parent.sampled:
            parent = None
        if parent is None and not (hit and was_full):
            return None
        if not self._within_rate():
            return None
        if parent is None:
            return Traceparent(self.ids.trace_id(), b"")
        if not (hit and was_full):
            self._kept -= 1
        return parent

    def _within_rate(self) -> bool:
        now = self._clock()
        refilled = self._credit + (now - self._counted_at) * self._per_s_max
        self._credit, self._counted_at = min(self._burst, refilled), now
        if self._credit < 1:
            return False
        self._credit -= 1
        return True
