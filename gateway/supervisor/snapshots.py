"""Asks each worker for its snapshot once a second, and ends one that lives but does not answer."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from gateway.beats import beat
from gateway.ops.live_page import INTERVAL_S
from gateway.supervisor.silence import Silence
from gateway.supervisor.worker_client import WorkerSilent
from gateway.supervisor.worker_process import WorkerProcess
from gateway.supervisor.workers import Worker, Workers

_log = structlog.get_logger(__name__)


class WorkerSnapshots:
    """What each worker said last."""

    def __init__(
        self,
        workers: Workers,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            workers: that run.
            clock: monotonic seconds.
        """
        self._workers = workers
        self._clock = clock
        self._silences: dict[WorkerProcess, Silence] = {}
        self.found: dict[int, dict[str, Any]] = {}
        """By the number of the worker; of those that have answered the last question."""

    async def run(self, on_found: Callable[[], Awaitable[None]]) -> None:
        """Ask for ever.

        Args:
            on_found: called after each second in which a worker has answered.
        """
        while True:
            await beat(INTERVAL_S)
            await self.step()
            if self.found:
                await on_found()

    async def step(self) -> None:
        """Ask them all at the same time."""
        asked = [worker for worker in self._workers if worker.process.alive]
        answers = await asyncio.gather(*(self._of(worker) for worker in asked))
        self.found = {
            worker.number: answer
            for worker, answer in zip(asked, answers, strict=True)
            if answer is not None
        }
        living = {worker.process for worker in self._workers}
        self._silences = {
            process: silence for process, silence in self._silences.items() if process in living
        }

    async def _of(self, worker: Worker) -> dict[str, Any] | None:
        process, now = worker.process, self._clock()
        silence = self._silences.setdefault(process, Silence(now))
        if not process.listening.is_set():
            _end(process, silence.starting(now))
            return None
        try:
            snapshot = await process.look()
        except WorkerSilent as exc:
            if not process.stopping:  # a worker that stops closes its port first
                silent(worker, exc)
                _end(process, silence.unanswered())
            return None
        silence.answered()
        return snapshot


def _end(process: WorkerProcess, reason: str) -> None:
    if reason and process.alive and not process.stopping:
        process.kill(reason)


def silent(worker: Worker, exc: WorkerSilent) -> None:
    """Log that a worker gave no answer."""
    if not worker.process.stopping:
        _log.warning("worker_silent", worker=worker.number, error=str(exc))
