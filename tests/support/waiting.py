"""Waiting for conditions, never for time to pass."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

PATIENCE_S = 30.0
"""A bound, not an expectation: machines that run tests are slow now and then."""


async def eventually(condition: Callable[[], Any], what: str = "condition") -> Any:
    """The first true value of `condition`, which may be a coroutine function."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come about in {PATIENCE_S:.0f} s"
        await asyncio.sleep(0.005)


async def within(awaitable: Awaitable[Any]) -> Any:
    """Await with a bound."""
    return await asyncio.wait_for(awaitable, PATIENCE_S)
