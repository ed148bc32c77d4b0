"""The client's time: monotonic, and replaced as a whole in tests."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """Where the client reads the time and waits, in seconds. No wall clock: it may jump."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep

    async def sleep_until(self, due: float) -> None:
        """Wait until `monotonic()` is at least `due`; a timer may fire early."""
        while (left := due - self.monotonic()) > 0:
            await self.sleep(left)
