"""The composition of `tidegate sink`: NATS, targets and pages of a process that runs sinks.

It needs no gateway, only NATS and the targets. Start: pages; each target is opened once, so that
what is wrong with it is said; then NATS and all sinks side by side. Stop: each sink leaves what it
has not committed to the next owner, and gives up its ownership.
"""

import asyncio
import math
import os
import random
import secrets
import signal
import socket
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version as package_version
from typing import Any, Final

import structlog

from gateway import tasks
from gateway.consumers.errors import TargetRefused
from gateway.consumers.files import FilesTarget
from gateway.consumers.postgres import PostgresTarget
from gateway.consumers.sink import SinkRunner, State
from gateway.consumers.target import Target
from gateway.events.document import PostgresSink, Sink
from gateway.nats_access import nats_address
from gateway.ops.listener import OpsListener, Pages
from gateway.settings import Settings
from gateway.stream.nats_client import LinkClient
from gateway.stream.nats_link import NatsLink
from gateway.stream.rights import Role
from gateway.telemetry.sinks import SinkMetrics

_log = structlog.get_logger(__name__)

_STOP_S: Final = 5.0


class SinkProcess:
    """One process that runs the sinks of an events file."""

    def __init__(
        self,
        settings: Settings,
        sinks: Sequence[Sink],
        *,
        database_url: str | None,
        ops_host: str,
        ops_port: int,
    ) -> None:
        """
        Args:
            settings: sections `nats` and `ops` are read.
            sinks: what the events file says of them.
            database_url: of all sinks into PostgreSQL; a secret.
            ops_host: where the pages are served.
            ops_port: likewise; 0 for a free port.
        """
        self._settings = settings
        self._ops_address = ops_host, ops_port
        self._rng = random.Random()
        self._owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._stopping = asyncio.Event()
        self._failures: list[BaseException] = []
        self._crew = tasks.Crew(self._fail)
        self.metrics = SinkMetrics()
        self._link = NatsLink(
            nats_address(settings, Role.CONSUMERS),
            renew=lambda: nats_address(settings, Role.CONSUMERS),
            name=f"tidegate-sink-{self._owner}",
            on_up=_nothing_to_subscribe,
            on_ready=lambda _client: None,
            on_down=lambda: None,
            on_failure=self._fail,
            rng=self._rng,
        )
        self._runners = [
            SinkRunner(
                sink,
                self._target(sink, database_url),
                self._link,
                observer=self.metrics,
                rng=self._rng,
                wall_clock=time.time,
            )
            for sink in sinks
        ]
        self.metrics.watch(self._runners, lambda: self._link.client is not None)
        self._ops = OpsListener(
            Pages(metrics=self.metrics.exposition, not_ready=self.not_ready, status=self.status),
            hosts=settings.ops.hosts,
        )
        self.ops_port = 0

    def _target(self, sink: Sink, database_url: str | None) -> Target:
        if isinstance(sink, PostgresSink):
            if database_url is None:
                raise TargetRefused(f"sink {sink.name} needs --database-url")
            return PostgresTarget(sink, database_url, owner=self._owner)
        return FilesTarget(sink)

    async def run(self, *, on_ready: Callable[["SinkProcess"], None] | None = None) -> None:
        """Run until SIGTERM or SIGINT.

        Args:
            on_ready: called once all sinks have begun.

        Raises:
            TargetRefused: a target says no at the start; with a line for each.
            PositionError: a stream is not the one that a sink has read.
            StreamError: NATS cannot be used.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        try:
            self.ops_port = await self._ops.start(*self._ops_address)
            await self._check()
            self._link.start()
            for runner in self._runners:
                self._crew.start(runner.run(), f"sink-{runner.name}")
            _log.info("sinks_started", sinks=[runner.name for runner in self._runners])
            if on_ready is not None:
                on_ready(self)
            await self._stopping.wait()
        finally:
            await tasks.bounded(self._crew.close(), "sinks", _STOP_S)
            await tasks.bounded(self._link.stop(), "nats-link", _STOP_S)
            await tasks.bounded(self._ops.stop(), "ops", _STOP_S)
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
        if self._failures:
            raise self._failures[0]

    async def _check(self) -> None:
        results = await asyncio.gather(
            *(runner.check() for runner in self._runners), return_exceptions=True
        )
        refusals = [each for each in results if isinstance(each, BaseException)]
        for each in refusals:
            if not isinstance(each, TargetRefused):
                raise each
        if refusals:
            raise TargetRefused("\n".join(map(str, refusals)))

    def _fail(self, failure: BaseException) -> None:
        """A sink has ended for good. The others go on, unless there is none."""
        self._failures.append(failure)
        if len(self._crew) == 0:
            self._stopping.set()

    # What the pages say

    def not_ready(self) -> str | None:
        """Why this process does not do what it should, or None. Standing by is what it should."""
        if self._link.client is None:
            return "nats"
        if self._failures:
            return "sink_failed"
        for runner in self._runners:
            if runner.state in (State.OPENING, State.REFUSED):
                return f"sink_{runner.state.value}"
        return None

    def status(self) -> dict[str, Any]:
        """The state of the process in a page."""
        return {
            "version": package_version("tidegate-gateway"),
            "owner": self._owner,
            "not_ready": self.not_ready(),
            "nats": {
                "connected": self._link.client is not None,
                "last_error": self._link.last_error or None,
            },
            "failed": [str(failure) for failure in self._failures],
            "sinks": {
                runner.name: {
                    "state": runner.state.value,
                    "trouble": runner.trouble or None,
                    "position": runner.position,
                    "lag_messages": _known(runner.lag_messages),
                    "lag_s": _known(round(runner.lag_s, 3)),
                    "retention_used": _known(round(runner.retention_used, 4)),
                }
                for runner in self._runners
            },
        }


def _known(figure: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(figure) else figure


async def _nothing_to_subscribe(_client: LinkClient) -> None:
    """A sink's readers make their own consumers."""
