"""What the operators' port of the supervisor shows: the pages of all workers as one."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from gateway.beats import beat
from gateway.node.lifecycle import NodeState
from gateway.ops.live_page import LivePage
from gateway.process import Work
from gateway.supervisor import answers, metric_merging
from gateway.supervisor.snapshots import WorkerSnapshots, silent
from gateway.supervisor.worker_client import Answer, WorkerClient, WorkerSilent
from gateway.supervisor.worker_process import WorkerProcess
from gateway.supervisor.workers import Worker, Workers
from gateway.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)

SUPERVISOR: Final = "supervisor"
"""The label `worker` of the supervisor's own gauges."""
KEEP_S: Final = 5.0
"""How often the counts of the workers are kept, for when one ends."""


class _Given(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


class WorkerPages:
    """Asks all workers, and puts together what they say."""

    def __init__(
        self,
        workers: Workers,
        clients: dict[int, WorkerClient],
        *,
        node: str,
        state: NodeState,
        metrics: Metrics,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            workers: that run.
            clients: of each, by its number.
            node: the name of this process.
            state: where the gateway is in its life.
            metrics: of this process.
            wall: Unix time in seconds.
        """
        self._workers = workers
        self._clients = clients
        self._node = node
        self._state = state
        self._metrics = metrics
        self._wall = wall
        self._ended: metric_merging.Counts = {}
        self._kept: dict[WorkerProcess, str] = {}
        """The metrics page of each process when it was asked last."""
        self._snapshots = WorkerSnapshots(workers)
        self.live = LivePage(self._snapshot)
        metrics.gauge("tidegate_workers", "Workers that should run.", workers.__len__)
        metrics.gauge(
            "tidegate_workers_ready", "Workers to which devices can come.", self._ready_count
        )
        metrics.counted(
            "tidegate_worker_restarts_total",
            "Workers that were started again after their process had died.",
            lambda: sum(worker.restarts for worker in workers),
        )

    async def close(self) -> None:
        """Close the connections to the workers."""
        for client in self._clients.values():
            await client.close()

    def work(self) -> Iterable[Work]:
        yield "worker-snapshots", self._snapshots.run(self.live.step)
        yield "worker-counts", self._keep()

    async def answers(self, path: str, order: bytes | None = None, who: str = "") -> list[Answer]:
        """Ask each worker whose process lives; the answers that come.

        Args:
            path: of the page.
            order: JSON to post; None to GET.
            who: the operator on whose behalf it is.
        """
        found = await asyncio.gather(
            *(self._ask(worker, path, order, who or SUPERVISOR) for worker in self._workers)
        )
        return [answer for answer in found if answer is not None]

    async def _ask(
        self, worker: Worker, path: str, order: bytes | None = None, who: str = SUPERVISOR
    ) -> Answer | None:
        """The answer of a worker; None if its process is not up, or gives none."""
        if not (worker.process.alive and worker.process.listening.is_set()):
            return None
        try:
            return await self._clients[worker.number].ask(path, order, who)
        except WorkerSilent as exc:
            silent(worker, exc)
            return None

    # Readiness

    def not_ready(self) -> str | None:
        """Why no device should be sent here, or None: one worker that is ready is enough."""
        if self._state.phase.value in {"draining", "stopped"}:
            return self._state.phase.value
        if self._ready_count():
            return None
        troubles = [trouble for trouble in map(self._trouble, self._workers) if trouble]
        return troubles[0] if troubles else "starting"

    def ready_details(self) -> dict[str, Any]:
        ready = self._ready_count()
        return {"workers": len(self._workers), "workers_not_ready": len(self._workers) - ready}

    def trouble(self) -> str | None:
        """Why the stream stores nothing, if every worker that serves says so."""
        troubles = [self._trouble(worker) for worker in self._workers.serving]
        return troubles[0] if troubles and all(troubles) else None

    def _ready_count(self) -> int:
        return sum(self._trouble(worker) is None for worker in self._workers.serving)

    def _trouble(self, worker: Worker) -> str | None:
        """What a worker said last; a new one that has said nothing yet serves."""
        taken = self._snapshots.found.get(worker.number)
        reason: str | None = None if taken is None else taken["status"]["not_ready"]
        return reason

    # Status and live page

    async def status(self) -> dict[str, Any]:
        """The page `/status`."""
        pages: dict[int, dict[str, Any] | None] = dict.fromkeys(
            worker.number for worker in self._workers
        )

        async def ask(worker: Worker) -> None:
            answer = await self._ask(worker, "/status")
            pages[worker.number] = None if answer is None else answer.document

        await asyncio.gather(*map(ask, self._workers))
        return answers.status(self._own(), pages)

    def _own(self) -> dict[str, Any]:
        return {
            "node": self._node,
            "state": self._state.phase.value,
            "not_ready": self.not_ready(),
            "uptime_s": round(self._state.uptime_s, 1),
            "rolling_restart": self._workers.rolling,
            "workers": {
                worker.number: {
                    "pid": worker.process.pid,
                    "alive": worker.process.alive,
                    "restarts": worker.restarts,
                }
                for worker in self._workers
            },
        }

    def _snapshot(self) -> dict[str, Any]:
        return answers.snapshot({**self._own(), "at": self._wall()}, self._snapshots.found)

    # Metrics

    async def metrics(self) -> tuple[bytes, str]:
        """The page `/metrics`."""
        self._bury()
        own, _kind = self._metrics.exposition()
        found = {SUPERVISOR: metric_merging.parse(own.decode())}
        pages = await asyncio.gather(*map(self._page, self._workers))
        for worker, page in zip(self._workers, pages, strict=True):
            if page is not None:
                found[str(worker.number)] = metric_merging.parse(page)
        registry = CollectorRegistry()
        registry.register(_Given(metric_merging.merged(found, self._ended)))
        return generate_latest(registry), CONTENT_TYPE_LATEST

    async def _page(self, worker: Worker) -> str | None:
        """The metrics page of a worker, which is kept; None if it gives no answer."""
        process = worker.process
        if not (process.alive and process.listening.is_set()):
            return None
        try:
            page = await self._clients[worker.number].text("/metrics")
        except WorkerSilent as exc:
            silent(worker, exc)
            return None
        if process.ended:
            return None  # its last counts are those that were kept before
        self._kept[process] = page
        return page

    async def _keep(self) -> None:
        while True:
            await beat(KEEP_S)
            for worker in self._workers:
                await self._page(worker)
            self._bury()

    def _bury(self) -> None:
        """What processes had counted that have ended stays in the sums."""
        for process in [each for each in self._kept if each.ended]:
            # Only a process that ends is parsed: that takes longer than to ask for the page.
            families = metric_merging.parse(self._kept.pop(process))
            metric_merging.add(self._ended, metric_merging.counts_of(families))
