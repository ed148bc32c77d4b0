"""Finds greedy devices, which send far more than the others and so get a small window.

Credit bounds what a device has outstanding, not how fast that turns over. A device with a full
window has many messages in every commit, and a device that sends a message now and then waits
behind them. So a device that sends many times what the others do gets a window of a few messages:
then its share of each commit is no larger than theirs (max-min fairness, with latency as the
resource). Where all devices send as much as they can, none is greedy, and windows are as large as
the node's backlog allows.

Where only a few devices send, a mean says little, so each is compared with the quietest of them. A
device that sends alone may send as much as it can.

Messages are counted in units: one a message, and one more for each `UNIT_BYTES` of it, because the
cost of large messages is in their bytes. The node's clock divides the count into turns. Pure.
"""

import math
from typing import Final

UNIT_BYTES: Final = 2_048
"""This many bytes cost about as much as a message without its bytes."""
_SENDERS_MIN: Final = 8
"""With this many senders or more, a device is compared with their mean."""
_FEW_FLOOR: Final = 200
"""Units a turn up to which no device is greedy where only a few send: about 400 KB."""
_FEW_TURNS: Final = 10
"""Turns for which a device that does not send in every turn stays protected."""
_DIGITS_MAX: Final = 64


class FairShare:
    """What the sessions of a node sent in the last turn, without the greedy ones."""

    __slots__ = (
        "_factor", "_few_until", "_floor", "_greedy", "_senders_by_digits", "greedy", "limit",
        "turn",
    )  # fmt: skip

    def __init__(self, *, factor: float = 16.0, floor: int = 50) -> None:
        """
        Args:
            factor: a device is greedy if it sends more than this many times the mean of the others.
            floor: units a turn up to which no device is greedy.
        """
        self._factor = factor
        self._floor = floor
        self._senders_by_digits = [0] * _DIGITS_MAX
        self._greedy = 0
        self._few_until = 0
        self.turn = 0
        self.limit = math.inf
        """Units a turn beyond which a session is greedy; infinity while only one session sends."""
        self.greedy = 0
        """Sessions that were greedy in the last turn."""

    def end_turn(self) -> None:
        """A turn of the node's clock is over."""
        senders = sum(self._senders_by_digits)
        if senders >= _SENDERS_MIN:
            # Averaging bit lengths approximates the geometric mean: a few heavy senders hardly
            # move it, and counting costs next to nothing.
            digits = sum(n * count for n, count in enumerate(self._senders_by_digits))
            self.limit = max(self._floor, self._factor * 2 ** (digits / senders - 1))
        elif senders and senders + self._greedy > 1:
            quietest = next(n for n, count in enumerate(self._senders_by_digits) if count)
            self.limit = max(_FEW_FLOOR, self._factor * 2 ** (quietest - 1))
            self._few_until = self.turn + _FEW_TURNS
        elif self.turn >= self._few_until:
            self.limit = math.inf
        self.greedy = self._greedy
        self._senders_by_digits = [0] * _DIGITS_MAX
        self._greedy = 0
        self.turn += 1

    def began(self, *, greedy: bool) -> None:
        """A session sends for the first time in this turn."""
        if greedy:
            self._greedy += 1
        else:
            self._senders_by_digits[0] += 1

    def grew(self, before: int, now: int) -> None:
        """What a session has sent in this turn has more binary digits."""
        self._senders_by_digits[before] -= 1
        self._senders_by_digits[now] += 1

    def turned_greedy(self, digits: int) -> None:
        """A session with so many digits is left out from now on."""
        self._senders_by_digits[digits] -= 1
        self._greedy += 1


class Share:
    """What one session sends, and whether it is greedy."""

    __slots__ = ("_count", "_node", "_turn", "greedy")

    def __init__(self, node: FairShare) -> None:
        self._node = node
        self._turn = -1
        self._count = 0
        self.greedy = False
        """Whether the device sends far more than the others."""

    def sent(self, messages: int, size: int) -> None:
        """The device sent so many messages of `size` bytes together."""
        node = self._node
        if self._turn != node.turn:
            # Half the limit, so that a device near the limit does not change sides every turn.
            last = self._count if self._turn == node.turn - 1 else 0
            self.greedy = self.greedy and last > node.limit / 2
            self._turn = node.turn
            self._count = 0
            node.began(greedy=self.greedy)
        before = self._count.bit_length()
        self._count += messages + size // UNIT_BYTES
        if self.greedy:
            return
        if self._count > node.limit:
            self.greedy = True
            node.turned_greedy(before)
        elif (digits := self._count.bit_length()) != before:
            node.grew(before, digits)
