"""Waiting for what other processes or other devices count, where there is no event to await."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from loadtest.errors import TargetError

_LOOK_EVERY_S: Final = 0.02


async def until(
    condition: Callable[[], bool], what: str, timeout_s: float, *, every_s: float = _LOOK_EVERY_S
) -> None:
    """Wait until the condition holds.

    Args:
        condition: quick, and called on the event loop.
        what: is waited for, for the error.
        timeout_s: how long at most.
        every_s: between two looks.

    Raises:
        TargetError: it did not hold in time.
    """
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110  # there is no event
                await asyncio.sleep(every_s)
    except TimeoutError:
        raise TargetError(f"{what}: not within {timeout_s:.0f} s") from None


async def until_awaited(
    condition: Callable[[], Awaitable[bool]], what: str, timeout_s: float, *, every_s: float = 0.1
) -> None:
    """The same for a condition that has to be awaited.

    Raises:
        TargetError: it did not hold in time.
    """
    try:
        async with asyncio.timeout(timeout_s):
            while not await condition():  # noqa: ASYNC110  # as above
                await asyncio.sleep(every_s)
    except TimeoutError:
        raise TargetError(f"{what}: not within {timeout_s:.0f} s") from None
