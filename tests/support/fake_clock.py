"""A clock for the client that passes when the test says so."""

import asyncio
import heapq
import itertools

from support.waiting import eventually


class FakeClock:
    """Monotonic time that stands still until `advance`; its sleepers wake in order."""

    def __init__(self, start_s: float = 1_000.0) -> None:
        self.now_s = start_s
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self.waits: list[float] = []
        """How long each sleep was asked to be."""

    def monotonic(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now_s + seconds, next(self._order), waiter))
        await waiter

    async def sleep_until(self, due: float) -> None:
        while (left := due - self.now_s) > 0:
            await self.sleep(left)

    @property
    def sleeping(self) -> int:
        return sum(not waiter.done() for _due, _order, waiter in self._sleepers)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now_s + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _order, waiter = heapq.heappop(self._sleepers)
            self.now_s = max(self.now_s, due)
            if not waiter.done():
                waiter.set_result(None)
        self.now_s = end

    async def advance_to_next(self) -> float:
        """Let the next sleeper wake. Returns how long that took."""
        await eventually(lambda: self.sleeping, "a sleeper")
        while self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        passed = self._sleepers[0][0] - self.now_s
        self.advance(passed)
        return passed


class JumpingClock(FakeClock):
    """Every sleep of the task `only` ends at once, and that much time has passed."""

    def __init__(self, start_s: float = 1_000.0, *, only: str | None = None) -> None:
        super().__init__(start_s)
        self._only = only

    async def sleep(self, seconds: float) -> None:
        task = asyncio.current_task()
        if self._only is not None and (task is None or task.get_name() != self._only):
            await super().sleep(seconds)
            return
        self.waits.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)
