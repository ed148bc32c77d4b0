"""A gateway of several workers: composition of what the supervisor runs, and its order.

The supervisor serves no device. It holds what can be held once only: the lock of the data directory
and the files in it, the listening sockets, the embedded nats-server and Redis, the operators' port.
It starts the workers, each a gateway process and a node of the fleet over that Redis, and speaks
for them.

**One listening socket for all.** A socket for each worker (SO_REUSEPORT) spreads connections more
evenly and wakes one worker a connection, but a connection is hashed into the queue of one worker
and stays there: while that worker is full, drains or is started again, its connections would wait,
and if its queue is closed they are reset. From one socket any worker takes any connection, and a
worker that must not take one leaves it (`node/board.py`). What that costs was measured with workers
that answer and close (uvloop, 2 cores, CPU a connection of all processes with their start). At
3,000 connections a second: 102 us from one socket and 98 from two, 139 from one and 128 from eight.
At 500 a second: 180 and 158, 261 and 255. So one socket costs 2 to 14 % more.
"""

import random
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import structlog

from gateway.data_directory import DataDirectoryLock
from gateway.node.lifecycle import Lifecycle, NodeState, StopOrders
from gateway.node.ops.access import OperatorAccess
from gateway.node.ops.observers import OpsMetrics
from gateway.node.stream.nats_server import EmbeddedNats
from gateway.ops.listener import OpsListener, Pages
from gateway.ops.protection import Protection
from gateway.process import (
    Assembly,
    Background,
    Ending,
    LogSummaries,
    OpsPort,
    Part,
    nothing,
    signal_handlers,
)
from gateway.settings import Settings
from gateway.supervisor.descriptors import check_descriptors
from gateway.supervisor.orders import SupervisorOrders
from gateway.supervisor.pages import WorkerPages
from gateway.supervisor.restarts import RestartPolicy
from gateway.supervisor.shared import Shared
from gateway.supervisor.worker_client import WorkerClient
from gateway.supervisor.worker_process import WorkerProcess
from gateway.supervisor.workers import Worker, Workers
from gateway.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)

_NATS_STOP_S: Final = 40.0
_WORKERS_STOP_S: Final = 40.0


class Supervisor:
    """One supervisor process."""

    def __init__(
        self, settings: Settings, *, config: Path | None, overrides: dict[str, Any]
    ) -> None:
        """Build every part. Call it in the event loop that will run them.

        Args:
            settings: of the gateway.
            config: the settings file, which each worker reads too.
            overrides: of the command line, by dotted key.

        Raises:
            SupervisorError: this machine has no room for the workers, or no Redis for them.
            OpsError: the tokens of operators cannot be used.
            EdgeError: the certificate of their port cannot be used.
        """
        self.settings = settings
        self._node = secrets.token_hex(4)
        check_descriptors(settings.server, settings.worker_count)
        metrics, ending, rng = Metrics(), Ending(), random.Random()
        shared = self.shared = Shared(
            settings,
            config,
            overrides,
            node=self._node,
            ending=ending,
            rng=rng,
            metrics=metrics,
        )
        state, orders = NodeState(), StopOrders(ending)
        self.workers = _workers(shared, settings.worker_count, ending, rng)
        self.pages = WorkerPages(
            self.workers,
            {each.number: WorkerClient(shared.run.worker(each.number)) for each in self.workers},
            node=self._node,
            state=state,
            metrics=metrics,
        )
        self.nats = (
            None if shared.nats is None else EmbeddedNats(settings, shared.nats, self.pages.trouble)
        )
        self.access = OperatorAccess(settings.ops, wall=time.time, clock=time.monotonic)
        self.access.register_gauges(metrics)
        self.ops = self._ops_port(metrics, orders)
        work = (LogSummaries(), self.pages, *(() if self.nats is None else (self.nats,)))
        self.background = Background(work, on_failure=ending.fail)
        self.lifecycle = Lifecycle(
            Assembly(self._parts()),
            state=state,
            ending=ending,
            orders=orders,
            storage_ready=self.workers.all_serving,
            on_serving=self._on_serving,
            draining=self.workers,
            reload=self._reload,
        )

    def _ops_port(self, metrics: Metrics, orders: StopOrders) -> OpsPort:
        ops, pages = self.settings.ops, self.pages
        routes = SupervisorOrders(
            pages, drain=orders.drain, restart_rolling=self.workers.restart_rolling
        ).routes()
        listener = OpsListener(
            Pages(pages.metrics, pages.not_ready, pages.status, pages.ready_details),
            protection=Protection(self.access.access, on_denied=OpsMetrics(metrics).denied),
            routes=[*routes, *pages.live.routes()],
            hosts=ops.hosts,
            tls=self.access.tls,
        )
        return OpsPort(listener, host=ops.host, port=ops.port)

    def _parts(self) -> Iterator[Part]:
        """In the order in which they start. They stop in the reverse order."""
        shared = self.shared
        lock = DataDirectoryLock(self.settings.nats.data_dir)
        yield Part("log", nothing, lambda: _log.info("stopped", node=self._node))
        yield Part("data-directory", lock.acquire, lock.release)
        yield Part("shared", shared.start, shared.stop)
        yield Part("pages", nothing, self.pages.close)
        yield Part("ops", self.ops.start, self.ops.stop)
        if self.nats is not None:
            yield Part("nats-server", self.nats.start, self.nats.stop, _NATS_STOP_S)
        if shared.redis is not None:
            yield Part("redis-server", shared.redis.start, shared.redis.stop)
        yield Part("background", self.background.start, self.background.stop)
        yield Part("workers", self.workers.start, self.workers.stop, _WORKERS_STOP_S)
        yield Part("listening", self._listening, nothing)

    def _listening(self) -> None:
        _log.info(
            "listening",
            node=self._node,
            port=self.port,
            ops_port=self.ops_port,
            workers=len(self.workers),
        )

    def _on_serving(self) -> None:
        _log.info(
            "serving",
            node=self._node,
            port=self.port,
            ops_port=self.ops_port,
            workers=len(self.workers),
        )

    def _reload(self) -> None:
        self.access.reload()
        self.workers.signal(signal.SIGHUP)

    def _restart_rolling(self) -> None:
        if not self.workers.restart_rolling():
            _log.warning("rolling_restart_goes_on")

    async def run(self, *, on_ready: Callable[["Supervisor"], None] | None = None) -> None:
        """Serve until a signal, then stop in order.

        Args:
            on_ready: called once every worker admits devices.

        Raises:
            Exception: whatever kept the gateway from starting or running.
        """
        ready = None if on_ready is None else lambda: on_ready(self)
        with signal_handlers({signal.SIGUSR1: self._restart_rolling}):
            await self.lifecycle.run(ready)

    # What is seen from outside

    @property
    def data_dir(self) -> Path:
        return self.settings.nats.data_dir

    @property
    def port(self) -> int:
        """Where devices connect."""
        return self.shared.port

    @property
    def ops_port(self) -> int:
        """Where operators connect."""
        return self.ops.port


def _workers(shared: Shared, count: int, ending: Ending, rng: random.Random) -> Workers:
    def process(number: int) -> WorkerProcess:
        return WorkerProcess(number, shared.hand_over, shared.files, on_failure=ending.fail)

    made = [
        Worker(number, process, policy=RestartPolicy(rng), on_end=shared.worker_ended)
        for number in range(1, count + 1)
    ]
    return Workers(made, on_failure=ending.fail)
