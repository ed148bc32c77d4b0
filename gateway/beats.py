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
