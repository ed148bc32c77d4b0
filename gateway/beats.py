"""Sleeps that end together, so that the periodic work of a process wakes it once and not in turn.
A leaf that any shell may import.

A wake of an idle process costs more than most of what is done in it: the kernel switches to the
process, and caches are cold. So what must happen about every so often happens at the next multiple
of its period, which is a moment that longer periods share if they are multiples of shorter ones.
The moments of a process are shifted by a random part of a second, because the workers of a gateway
would otherwise all wake at the same moment.
"""

import asyncio
import math
import random
from typing import Final

SHIFT_S: Final = random.random()
"""Beats are at multiples of their period, this much later."""


def beat_in_s(now_s: float, every_s: float, shift_s: float) -> float:
    """Seconds until the next beat: at least half a period and at most one and a half. Pure.

    A beat that is nearer is passed over. So a timer that fires a little early is not followed by
    another one at once.

    Args:
        now_s: monotonic seconds.
        every_s: the period.
        shift_s: beats are at multiples of the period, this much later.
    """
    beats = math.floor((now_s - shift_s) / every_s + 0.5) + 1
    return beats * every_s + shift_s - now_s


def next_beat(every_s: float) -> float:
    """The loop time of the next beat of that period, in seconds."""
    now = asyncio.get_running_loop().time()
    return now + beat_in_s(now, every_s, SHIFT_S)


async def beat(every_s: float) -> float:
    """Sleep until the next beat of that period, in seconds.

    Returns:
        The loop time at which the beat was due.
    """
    due = next_beat(every_s)
    await asyncio.sleep(due - asyncio.get_running_loop().time())
    return due


class Wake:
    """What ends a sleep until the next beat early. One task sleeps at a time.

    `asyncio.timeout` around `Event.wait` would do the same for three times the CPU: it ends nearly
    every wait by a cancellation.
    """

    __slots__ = ("_set", "_sleeper")

    def __init__(self) -> None:
        self._set = False
        self._sleeper: asyncio.Future[None] | None = None

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        """End the sleep that goes on, or the next one."""
        self._set = True
        if self._sleeper is not None:
            _end(self._sleeper)

    def clear(self) -> None:
        """Let the next sleep last until a beat."""
        self._set = False

    async def beat(self, every_s: float) -> bool:
        """Sleep until the next beat of that period, in seconds, or until it is set.

        Returns:
            Whether it is set.
        """
        if not self._set:
            loop = asyncio.get_running_loop()
            sleeper = self._sleeper = loop.create_future()
            timer = loop.call_at(next_beat(every_s), _end, sleeper)
            try:
                await sleeper
            finally:
                timer.cancel()
                self._sleeper = None
        return self._set


def _end(sleeper: "asyncio.Future[None]") -> None:
    if not sleeper.done():
        sleeper.set_result(None)
