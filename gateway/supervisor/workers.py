"""Keeps the workers running, replaces them one after the other, and ends them together."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from signal import Signals
from typing import Any, Final

import structlog

from gateway import tasks
from gateway.supervisor.errors import WorkerCannotStart, WorkerGivenUp
from gateway.supervisor.restarts import RestartPolicy
from gateway.supervisor.worker_process import WorkerProcess, reason_of

_log = structlog.get_logger(__name__)

SERVING_S: Final = 120.0
"""A worker that is started in a rolling restart must admit devices within this."""
_LOOK_S: Final = 0.05


class Worker:
    """One worker: a process, and after its death the next one."""

    def __init__(
        self,
        number: int,
        make: Callable[[int], WorkerProcess],
        *,
        policy: RestartPolicy,
        on_end: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            number: from 1.
            make: makes a process of it, not yet started.
            policy: when it is started again.
            on_end: called with its number when a process of it has ended.
            clock: monotonic seconds.
        """
        self.number = number
        self._make = make
        self._policy = policy
        self._on_end = on_end
        self._clock = clock
        self._ending = False
        self._succeeded = asyncio.Event()
        """Set once a process has followed another."""
        self._has_listened = False
        self.process = make(number)
        """The present process, or the last one."""
        self.restarts = 0
        """Processes that were started after a death."""

    async def run(self) -> None:
        """Keep it running until it is told to stop.

        Raises:
            WorkerCannotStart: the first process of it has failed.
            WorkerGivenUp: its processes die at once.
        """
        while not self._told_to_end():
            began = self._clock()
            process = self.process
            await process.start()
            if self._told_to_end():  # meanwhile
                process.stop(0, now=True)
            status = await process.wait()
            self._has_listened = self._has_listened or process.listening.is_set()
            self._on_end(self.number)
            if self._told_to_end():
                return
            if not process.stopping:
                await self._bury(process, status, self._clock() - began)
            self.process = self._make(self.number)
            self._succeeded.set()

    def _told_to_end(self) -> bool:
        return self._ending

    async def _bury(self, process: WorkerProcess, status: int, lived_s: float) -> None:
        """Wait as long as its policy says.

        Raises:
            WorkerCannotStart, WorkerGivenUp: there is no point in another process.
        """
        reason = reason_of(process, status)
        if not self._has_listened:
            raise WorkerCannotStart(f"worker {self.number} cannot start: {reason}")
        wait_s = self._policy.died(lived_s)
        if wait_s is None:
            raise WorkerGivenUp(f"worker {self.number} dies again and again: {reason}")
        _log.error(
            "worker_died",
            worker=self.number,
            pid=process.pid,
            reason=reason,
            lived_s=round(lived_s, 1),
            restart_in_s=round(wait_s, 2),
        )
        await asyncio.sleep(wait_s)
        self.restarts += 1

    def stop(self, leaving: int, *, now: bool) -> None:
        """End it for good; see `WorkerProcess.stop`."""
        self._ending = True
        self.process.stop(leaving, now=now)

    async def replace(self) -> bool:
        """Drain its process, and start another. Returns whether that one admits devices in time."""
        self._succeeded.clear()
        self.process.stop(0, now=False)
        await self._succeeded.wait()
        after = self.process
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SERVING_S):
                await after.serving.wait()
        return after.serving.is_set()


class Workers:
    """All workers of a gateway."""

    def __init__(
        self,
        workers: Sequence[Worker],
        *,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """
        Args:
            workers: not yet started.
            on_failure: hears why a worker can no longer be kept running.
        """
        self._workers = tuple(workers)
        self._crew = tasks.Crew(on_failure)
        self._running: list[asyncio.Task[None]] = []
        self._rolling: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._workers)

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers)

    @property
    def serving(self) -> list[Worker]:
        """Those whose process lives and has admitted devices."""
        return [each for each in self if each.process.alive and each.process.serving.is_set()]

    @property
    def unsettled(self) -> int:
        """For the log of a drain that is cut short: the workers know how many messages."""
        return 0

    async def start(self) -> None:
        """Start them all; returns when each has answered devices, or one has failed for good."""
        for worker in self:
            task = self._crew.start(worker.run(), f"worker-{worker.number}")
            self._running.append(task)
        await self._all(lambda process: process.listening)

    async def all_serving(self) -> None:
        """Wait until each admits devices."""
        await self._all(lambda process: process.serving)

    async def _all(self, event: Callable[[WorkerProcess], asyncio.Event]) -> None:
        while not all(event(worker.process).is_set() for worker in self):
            if any(task.done() and not task.cancelled() for task in self._running):
                return  # the failure of that worker ends the gateway
            await asyncio.sleep(_LOOK_S)

    def signal(self, number: Signals) -> None:
        """Pass a signal on to each."""
        for worker in self:
            worker.process.signal(number)

    # A rolling restart

    @property
    def rolling(self) -> bool:
        """Whether a rolling restart goes on."""
        return self._rolling is not None and not self._rolling.done()

    def restart_rolling(self) -> bool:
        """Replace each worker in turn. Returns False if that goes on already."""
        if self.rolling:
            return False
        self._rolling = self._crew.start(self._roll(), "rolling-restart")
        return True

    async def _roll(self) -> None:
        _log.info("rolling_restart", workers=len(self))
        for worker in self:
            if not await worker.replace():
                # The others stay as they are: what keeps this one from serving may keep them too.
                _log.error("rolling_restart_stopped", worker=worker.number, after_s=SERVING_S)
                return
            _log.info("worker_replaced", worker=worker.number, pid=worker.process.pid)
        _log.info("rolling_restart_done", workers=len(self))

    # The end

    def refuse_knocks(self) -> None:
        """Each worker refuses knocks itself once it drains."""

    async def run(self) -> None:
        """Drain them all at once, and wait for their end."""
        await tasks.end(self._rolling)
        for worker in self:
            worker.stop(len(self) - 1, now=False)
        if self._running:
            await asyncio.wait(self._running)

    async def stop(self) -> None:
        """End them within seconds."""
        await tasks.end(self._rolling)
        for worker in self:
            worker.stop(len(self) - 1, now=True)
        ends: list[Coroutine[Any, Any, None]] = [worker.process.end() for worker in self]
        await asyncio.gather(*ends)
        await self._crew.close()
