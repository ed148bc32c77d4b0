"""When a lane acts next of its own accord: one moment at a time, on a timer of the loop.

An answer nearly always comes long before its timeout. To make and cancel a timer of the loop for
each batch costs as much as to encode a message. So a moment that is forgotten or moved to later
leaves its timer running, which looks again when it fires.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Final

_SOON: Final = -math.inf
"""The moment at which this turn of the loop is over."""


class NextMoment:
    """The moment at which a lane acts."""

    __slots__ = ("_act", "_at", "_timer", "_timer_at")

    def __init__(self, act: Callable[[], None]) -> None:
        """
        Args:
            act: called once at the moment.
        """
        self._act = act
        self._at = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    @property
    def is_set(self) -> bool:
        """Whether a moment is set that has not come."""
        return self._at < math.inf

    def set_soon(self) -> None:
        """Act when this turn of the loop is over."""
        self._at = _SOON
        asyncio.get_running_loop().call_soon(self.turn_over)

    def set_after(self, delay_s: float) -> None:
        """Act after so many seconds, and not at the moment that was set before."""
        loop = asyncio.get_running_loop()
        self._at = at = loop.time() + delay_s
        if at < self._timer_at:
            self._start(loop, at, delay_s)

    def turn_over(self) -> None:
        """This turn of the loop is over, or has taken so long that it counts as over."""
        if self._at == _SOON:
            self._at = math.inf
            self._act()

    def forget(self) -> None:
        """Do not act at the moment that is set."""
        self._at = math.inf

    def close(self) -> None:
        """Forget the moment, and leave no timer behind."""
        self._at = self._timer_at = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self, loop: asyncio.AbstractEventLoop, at: float, delay_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = loop.call_later(delay_s, self._look)

    def _look(self) -> None:
        """The timer has fired. Act if the moment is here; else wait for the one that is set."""
        self._timer = None
        self._timer_at = math.inf
        at = self._at
        if at == math.inf:
            return
        loop = asyncio.get_running_loop()
        left_s = at - loop.time()
        if left_s > 0:
            self._start(loop, at, left_s)
        else:
            self._at = math.inf
            self._act()
