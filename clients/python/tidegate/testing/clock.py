"""A clock that passes when a test says so, or by itself when nothing else happens."""

import asyncio
import contextlib
import heapq
import itertools
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

from tidegate.clock import Clock
from tidegate.elapsed import Uptime

_log = logging.getLogger("tidegate.testing")

_IDLE_TURNS: Final = 100
"""So many turns of the event loop without news mean that every task waits for time to pass."""
_JUMPED_MAX_S: Final = 7 * 86_400.0
"""Nothing that a test waits for takes longer; then the clock stops, so that the test can fail."""


class FakeClock(Clock):
    """Time in seconds that no test has to wait for.

    With `autojump` the clock jumps to the next moment for which somebody waits, as soon as nothing
    else happens in the event loop. What happens outside of it (threads, real sockets, other
    processes) the clock cannot see: move it by hand there, with `advance` or `advance_to_next`.
    """

    def __init__(
        self, *, autojump: bool = False, start_s: float = 1_000.0, wall_s: float = 1_800_000_000.0
    ) -> None:
        """
        Args:
            autojump: whether time passes by itself when every task waits.
            start_s: what `monotonic` says first.
            wall_s: what `wall` says first, Unix time.
        """
        self.now_s = start_s
        self.boot = "a fake boot"
        self.waits: list[float] = []
        """How long each `sleep` was asked to be."""
        self._wall_offset_s = wall_s - start_s
        self._autojump = autojump
        self._jumped_s = 0.0
        self._alarms: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._idle_turns = 0
        self._counting = False
        self._slept = asyncio.Event()

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return self.now_s + self._wall_offset_s

    def uptime(self) -> Uptime:
        return Uptime(self.boot, int(self.now_s * 1000))

    def set_wall(self, wall_s: float) -> None:
        """The wall clock jumps to this Unix time."""
        self._wall_offset_s = wall_s - self.now_s

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        alarm = self._alarm(seconds)
        self._slept.set()
        await alarm

    @contextlib.asynccontextmanager
    async def limit(self, seconds: float) -> AsyncIterator[Any]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None) as timeout:
            inside = True

            def on_due(alarm: asyncio.Future[None]) -> None:
                if inside and not alarm.cancelled():
                    timeout.reschedule(loop.time())

            alarm = self._alarm(seconds)
            alarm.add_done_callback(on_due)
            try:
                yield timeout
            finally:
                inside = False  # the alarm may be due already, and its callback scheduled
                alarm.cancel()

    @property
    def sleeping(self) -> int:
        """How many tasks wait for time to pass, in a `sleep` or under a `limit`."""
        return sum(not alarm.done() for _due, _order, alarm in self._alarms)

    def advance(self, seconds: float) -> None:
        """Let time pass. Those who wait are woken in order."""
        end = self.now_s + seconds
        while self._alarms and self._alarms[0][0] <= end:
            due, _order, alarm = heapq.heappop(self._alarms)
            self.now_s = max(self.now_s, due)
            if not alarm.done():
                alarm.set_result(None)
        self.now_s = max(self.now_s, end)
        self.stir()

    async def advance_to_next(self) -> float:
        """Wait until a task sleeps, and let time pass until the next one wakes.

        Returns:
            How much time has passed, in seconds.
        """
        while self._next_due() is None:
            self._slept.clear()
            await self._slept.wait()
        due = self._next_due()
        assert due is not None
        passed_s = max(0.0, due - self.now_s)
        self.advance(passed_s)
        return passed_s

    def stir(self) -> None:
        """Something has happened: time does not jump before its consequences are over."""
        self._idle_turns = 0
        if self._autojump and not self._counting and self._next_due() is not None:
            self._counting = True
            asyncio.get_running_loop().call_soon(self._count_idle_turns)

    def _alarm(self, seconds: float) -> asyncio.Future[None]:
        alarm: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if seconds <= 0:
            alarm.set_result(None)
        else:
            heapq.heappush(self._alarms, (self.now_s + seconds, next(self._order), alarm))
        self.stir()
        return alarm

    def _next_due(self) -> float | None:
        while self._alarms and self._alarms[0][2].done():
            heapq.heappop(self._alarms)
        return self._alarms[0][0] if self._alarms else None

    def _count_idle_turns(self) -> None:
        self._idle_turns += 1
        if self._idle_turns < _IDLE_TURNS:
            asyncio.get_running_loop().call_soon(self._count_idle_turns)
            return
        self._counting = False
        due = self._next_due()
        if due is None:
            return
        self._jumped_s += due - self.now_s
        if self._jumped_s > _JUMPED_MAX_S:
            _log.error("the fake clock stops: %.0f s passed by themselves", _JUMPED_MAX_S)
            return
        self.advance(due - self.now_s)
