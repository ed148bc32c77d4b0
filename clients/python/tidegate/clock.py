"""The client's clocks, replaced as a whole in tests. No other module reads the system's clocks."""

import asyncio
import contextlib
import functools
import secrets
import time
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final

from tidegate.elapsed import Uptime

_BOOT_ID_FILE: Final = Path("/proc/sys/kernel/random/boot_id")


class Clock:
    """Where the client reads the time and waits. All times are in seconds."""

    def monotonic(self) -> float:
        """A time that never goes back. Every rate, wait and timeout of the client uses it."""
        return time.monotonic()

    def wall(self) -> float:
        """Unix time. It may be wrong, and it may jump."""
        return time.time()

    def uptime(self) -> Uptime:
        """The time since boot, including suspend where the system counts it."""
        clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        return Uptime(_boot_id(), time.clock_gettime_ns(clock) // 1_000_000)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    def limit(self, seconds: float) -> AbstractAsyncContextManager[Any]:
        """A context whose body is cancelled after `seconds`; it then raises TimeoutError."""
        return asyncio.timeout(seconds)

    async def sleep_until(self, due: float) -> None:
        """Wait until `monotonic()` is at least `due`. A timer may fire early, so look again."""
        while (left := due - self.monotonic()) > 0:
            await self.sleep(left)

    async def ended(
        self, tasks: Iterable[asyncio.Task[Any]], within_s: float
    ) -> set[asyncio.Task[Any]]:
        """Wait until all tasks have ended, for at most `within_s`.

        Returns:
            The tasks that have not ended.
        """
        waiting = set(tasks)
        if waiting:
            with contextlib.suppress(TimeoutError):
                async with self.limit(within_s):
                    await asyncio.wait(waiting)
        return {task for task in waiting if not task.done()}


@functools.cache
def _boot_id() -> str:
    """The system's name for this boot. Where the system has none, a name for this process."""
    try:
        return _BOOT_ID_FILE.read_text(encoding="ascii").strip()
    except OSError:
        return secrets.token_hex(16)
