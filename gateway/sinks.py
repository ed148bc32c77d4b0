"""The composition of `tidegate sink`: NATS, targets and pages of a process that runs sinks.

The process needs no gateway, only NATS and the targets. Its parts start in this order: the pages;
each target once, so that a refusal is reported; NATS; all sinks side by side. When it stops, each
sink leaves what it has not committed to the next owner, and gives up its ownership.
"""

import os
import random
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import structlog

from gateway.consumers.errors import TargetRefused
from gateway.consumers.files import FilesTarget
from gateway.consumers.postgres import PostgresTarget
from gateway.consumers.sink import SinkRunner
from gateway.consumers.target import Target
from gateway.events.document import PostgresSink, Sink
from gateway.nats_access import nats_address
from gateway.ops.listener import OpsListener, Pages
from gateway.process import Assembly, Background, Ending, OpsPort, Part, nothing, serve
from gateway.settings import Settings
from gateway.sink_parts import Sinks, SinkStatus, Survivors
from gateway.stream.nats_client import LinkClient
from gateway.stream.nats_link import NatsLink
from gateway.stream.rights import Role
from gateway.telemetry.sinks import SinkMetrics

_log = structlog.get_logger(__name__)

_STOP_S: Final = 5.0
"""How long each part of the process may take to stop."""


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

        Raises:
            TargetRefused: a sink into PostgreSQL has no URL.
            StreamError: the address of NATS cannot be found, or its TLS files cannot be used.
        """
        rng = random.Random()
        owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self.ending = Ending()
        self.metrics = SinkMetrics()
        self._survivors = Survivors(self.ending)
        self._link = NatsLink(
            nats_address(settings, Role.CONSUMERS),
            renew=lambda: nats_address(settings, Role.CONSUMERS),
            name=f"tidegate-sink-{owner}",
            on_up=_nothing_to_subscribe,
            on_ready=_nothing_to_publish,
            on_down=nothing,
            on_failure=self._survivors.failed,
            rng=rng,
        )
        self._sinks = Sinks(
            [
                SinkRunner(
                    sink,
                    _target(sink, owner, database_url),
                    self._link,
                    observer=self.metrics,
                    rng=rng,
                    wall_clock=time.time,
                )
                for sink in sinks
            ],
            self._survivors,
        )
        status = SinkStatus(owner, self._sinks.runners, self._link, self.ending)
        self.metrics.watch(self._sinks.runners, status.connected)
        pages = Pages(
            metrics=self.metrics.exposition, not_ready=status.not_ready, status=status.page
        )
        listener = OpsListener(pages, hosts=settings.ops.hosts)
        self.ops = OpsPort(listener, host=ops_host, port=ops_port)
        self._background = Background([self._sinks], on_failure=self._survivors.sink_failed)

    def _parts(self) -> Iterator[Part]:
        """In the order in which they start. They stop in the reverse order."""
        yield Part("ops", self.ops.start, self.ops.stop, _STOP_S)
        yield Part("targets", self._sinks.check, nothing)
        yield Part("nats-link", self._link.start, self._link.stop, _STOP_S)
        yield Part("sinks", self._background.start, self._background.stop, _STOP_S)

    async def run(self, *, on_ready: Callable[["SinkProcess"], None] | None = None) -> None:
        """Run until SIGTERM or SIGINT.

        Args:
            on_ready: called once all sinks have begun.

        Raises:
            TargetRefused: a target says no at the start; with a line for each.
            PositionError: a stream is not the one that a sink has read.
            StreamError: NATS cannot be used.
        """

        def started() -> None:
            _log.info("sinks_started", sinks=[runner.name for runner in self._sinks.runners])
            if on_ready is not None:
                on_ready(self)

        await serve(Assembly(self._parts()), self.ending, on_started=started)


def _target(sink: Sink, owner: str, database_url: str | None) -> Target:
    if not isinstance(sink, PostgresSink):
        return FilesTarget(sink)
    if database_url is None:
        raise TargetRefused(f"sink {sink.name} needs --database-url")
    return PostgresTarget(sink, database_url, owner=owner)


async def _nothing_to_subscribe(_client: LinkClient) -> None:
    """A sink's readers make their own consumers."""


def _nothing_to_publish(_client: LinkClient) -> None:
    """A sink publishes letters by request."""
