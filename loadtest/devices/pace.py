"""Sending at a steady rate."""

import asyncio
from collections.abc import Callable
from time import monotonic


async def at_rate(rate_per_s: float, send: Callable[[int], None], *, tick_s: float = 0.002) -> None:
    """Call `send` with 0, 1, 2, ... at that rate, until cancelled.

    What a tick of the loop missed is made up for at the next, so the mean rate holds.
    """
    began, sent = monotonic(), 0
    while True:
        while sent < (monotonic() - began) * rate_per_s:
            send(sent)
            sent += 1
        await asyncio.sleep(tick_s)
