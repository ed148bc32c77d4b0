"""Draining: every session is given a slot elsewhere, at a set rate, before it is closed."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from gateway.edge.device import DeviceHandler

_log = structlog.get_logger(__name__)

_TICK_S: Final = 0.5
"""Deadlines are coarse: a little longer, so that each has been parted from by then."""

SlotElsewhere = Callable[[DeviceHandler], Awaitable[tuple[int, str]]]


async def send_away(
    sessions: Sequence[DeviceHandler],
    slot_elsewhere: SlotElsewhere,
    *,
    rate_per_s: float,
    linger_s: float,
    empty: asyncio.Event,
    rng: random.Random,
) -> None:
    """Send `sessions` away, in random order.

    Args:
        sessions: of this node.
        slot_elsewhere: gives each its slot (milliseconds from now) and ticket.
        rate_per_s: sessions sent away a second.
        linger_s: how long each lives on after its slot, so that the device can make its new
            connection before the old one breaks; negative if there is no other node to go to.
        empty: set once no connection is left.
        rng: source of the order.
    """
    order = list(sessions)
    rng.shuffle(order)
    _log.info("draining", devices=len(order), seconds=round(len(order) / rate_per_s, 1))
    loop = asyncio.get_running_loop()
    began = loop.time()
    last_slot_at = began
    for place, session in enumerate(order):
        delay_s = began + place / rate_per_s - loop.time()
        if delay_s > 0:
            await asyncio.sleep(delay_s)
        retry_ms, ticket = await slot_elsewhere(session)
        session.leave("drain", retry_ms, ticket, linger_s)
        last_slot_at = max(last_slot_at, loop.time() + retry_ms / 1000)
    if linger_s < 0:
        return
    # Each goes by itself, or is parted from when its time is up.
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(empty.wait(), last_slot_at + linger_s + _TICK_S - loop.time())
