"""Which devices send far more than the others, and must have a small window for the others' sake.

Credit bounds what a device has outstanding, not how fast that turns over. One device with a full
window keeps a batch of its own in every commit, and a device that sends one message now and then
waits behind it. So a device that sends many times what the others do gets a window of a few
messages: its share of each commit is then no larger than theirs (max-min fairness, with latency as
the resource). Where all send as much as they can, no device is greedy, and windows stay what the
node's backlog allows.

What is sent is counted in units: a message is one, and one more for each `UNIT_BYTES` of it, since
large messages cost in bytes. Counted in turns, which the node's clock ends; pure.
"""

import math
from typing import Final

UNIT_BYTES: Final = 2_048
"""Bytes that cost about what a message costs besides its bytes."""
_SENDERS_MIN: Final = 8


class FairShare:
    """What the sessions of a node sent in the last turn, greedy ones left out."""

    __slots__ = ("_digits", "_factor", "_floor", "_greedy", "_senders", "greedy", "limit", "turn")

    def __init__(self, *, factor: float = 16.0, floor: int = 50) -> None:
        """
        Args:
            factor: a device is greedy if it sends more than so many times the mean of the others.
            floor: units a turn that make no device greedy.
        """
        self._factor = factor
        self._floor = floor
        self._digits = 0
        self._senders = 0
        self._greedy = 0
        self.turn = 0
        self.limit = math.inf
        """Units a turn beyond which a session is greedy; unbounded while few send at all."""
        self.greedy = 0
        """Sessions that were greedy in the last turn."""

    def end_turn(self) -> None:
        """A turn of the node's clock is over."""
        self.limit = math.inf
        if self._senders >= _SENDERS_MIN:
            # Averaging binary digits approximates the geometric mean: a few that send very much
            # hardly move it, and counting costs next to nothing.
            self.limit = max(self._floor, self._factor * 2 ** (self._digits / self._senders - 1))
        self.greedy = self._greedy
        self._digits = self._senders = self._greedy = 0
        self.turn += 1

    def add(self, digits: int, senders: int, greedy: int) -> None:
        """Count a session, with the binary digits of what it sent; negative to take it back."""
        self._digits += digits
        self._senders += senders
        self._greedy += greedy


class Share:
    """What one session sends."""

    __slots__ = ("_count", "_node", "_turn", "greedy")

    def __init__(self, node: FairShare) -> None:
        self._node = node
        self._turn = -1
        self._count = 0
        self.greedy = False
        """Whether it sends far more than the others."""

    def sent(self, messages: int, size: int) -> None:
        """The device sent so many messages of `size` bytes together."""
        node = self._node
        if self._turn != node.turn:
            # Half the limit, so that who is near it does not change sides every turn.
            last = self._count if self._turn == node.turn - 1 else 0
            self.greedy = self.greedy and last > node.limit / 2
            self._turn = node.turn
            self._count = 0
            node.add(0, int(not self.greedy), int(self.greedy))
        before = self._count.bit_length()
        self._count += messages + size // UNIT_BYTES
        if self.greedy:
            return
        if self._count > node.limit:
            self.greedy = True
            node.add(-before, -1, 1)
        elif (digits := self._count.bit_length()) != before:
            node.add(digits - before, 0, 0)
