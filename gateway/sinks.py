"""The composition of `tidegate sink` and `tidegate route`: NATS, targets and pages of a process.

The process needs no gateway, only NATS and the targets. Its parts start in this order: the pages;
NATS; each target once, so that a refusal is reported; all sinks, or all rules, side by side. When
it stops, each leaves what it has not committed to the next owner, and gives up its ownership.
"""

import asyncio
import contextlib
import os
import random
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import structlog

from gateway.consumers.letters.redrive_carrier import RedriveCarrier
from gateway.consumers.letters.redrive_watch import RedriveWatch
from gateway.consumers.letters.watch import LetterWatch
from gateway.consumers.reading import OwnReading, ReadingOf
from gateway.consumers.sink import SinkRunner
from gateway.consumers.target import Consumption, Target
from gateway.events.letters import Stage
from gateway.nats_access import nats_address
from gateway.node.ops.access import OPERATORS_CERTIFICATE, tls_of
from gateway.node.reloaded.certificate import following, transport_of
from gateway.ops.listener import OpsListener, Pages
from gateway.process import (
    Assembly,
    Background,
    Ending,
    LogSummaries,
    OpsPort,
    Part,
    nothing,
    serve,
)
from gateway.settings import Settings
from gateway.sink_parts import Sinks, SinkStatus, Survivors, traces_of
from gateway.stream.link.client import LinkClient
from gateway.stream.link.link import NatsLink
from gateway.stream.server.roles import Role
from gateway.telemetry.sinks import SinkMetrics

_log = structlog.get_logger(__name__)

_STOP_S: Final = 5.0
"""How long each part of the process may take to stop."""
_NATS_S: Final = 5.0
"""How long the check of the targets waits for NATS, which rules need for it."""

TargetOf = Callable[[Any, str, NatsLink], Target]
"""Makes the target of a sink or rule, for an owner, on the process's connection."""
Readings = Callable[[Sequence[Any], NatsLink, random.Random], ReadingOf]
"""Makes, for all sinks or rules of a process, what makes the reading of each."""


def own_readings(_sinks: Sequence[Consumption], link: NatsLink, rng: random.Random) -> ReadingOf:
    """A reader for each sink."""
    return lambda sink, progress: OwnReading(sink, progress, link, rng)


class SinkProcess:
    """One process that runs the sinks, or the rules, of an events file."""

    def __init__(
        self,
        settings: Settings,
        sinks: Sequence[Consumption],
        *,
        kind: Stage,
        target_of: TargetOf,
        readings: Readings,
        redrive_target_of: TargetOf,
        ops_host: str,
        ops_port: int,
    ) -> None:
        """
        Args:
            settings: sections `nats`, `ops` and `trace` are read.
            sinks: what the events file says of the sinks, or of the rules.
            kind: which of the two they are, and the stage of their dead letters.
            target_of: makes the target of one of them.
            readings: makes what makes their readings.
            redrive_target_of: likewise, for dead letters that were sent again to it.
            ops_host: where the pages are served.
            ops_port: likewise; 0 for a free port.

        Raises:
            TargetRefused: a sink into PostgreSQL has no URL.
            StreamError: the address of NATS cannot be found, or its TLS files cannot be used.
            TlsError: the certificate of the ops port cannot be used.
            TelemetryError: the spans cannot be exported.
        """
        rng = random.Random()
        owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._kind: Stage = kind
        self.ending = Ending()
        self.metrics = SinkMetrics(kind)
        self._observer, self._traces = traces_of(settings, self.metrics, kind, owner, rng)
        self._survivors = Survivors(self.ending)
        self._link = _link_of(settings, f"tidegate-{kind}-{owner}", self._survivors, rng)
        runners = self._runners_of(
            sinks,
            readings(sinks, self._link, rng),
            lambda sink: target_of(sink, owner, self._link),
            rng,
        )
        self._sinks = Sinks(runners, self._survivors, kind)
        redrives = self._redrives_of(sinks, lambda s: redrive_target_of(s, owner, self._link), rng)
        status = SinkStatus(kind, owner, self._sinks.runners, self._link, self.ending)
        self.metrics.watch(self._sinks.runners, status.connected)
        letters = LetterWatch(self._link, rng, time.time)
        self.metrics.watch_letters(letters)
        pages = Pages(
            metrics=self.metrics.exposition, not_ready=status.not_ready, status=status.page
        )
        self._transport = transport_of(tls_of(settings.ops))
        self._transport.register_gauges(self.metrics, OPERATORS_CERTIFICATE)
        # The pages of these processes name no device and change nothing, so they need no token.
        listener = OpsListener(pages, hosts=settings.ops.hosts, tls=following(self._transport))
        self.ops = OpsPort(listener, host=ops_host, port=ops_port)
        self._background = Background(
            [self._sinks, redrives, letters, LogSummaries()], on_failure=self._survivors.sink_failed
        )

    def _runners_of(
        self,
        sinks: Sequence[Consumption],
        reading_of: ReadingOf,
        target_of: Callable[[Any], Target],
        rng: random.Random,
    ) -> list[SinkRunner]:
        return [
            SinkRunner(
                sink,
                target_of(sink),
                self._link,
                reading_of=reading_of,
                stage=self._kind,
                observer=self._observer,
                rng=rng,
                wall_clock=time.time,
            )
            for sink in sinks
        ]

    def _redrives_of(
        self, sinks: Sequence[Consumption], target_of: Callable[[Any], Target], rng: random.Random
    ) -> RedriveWatch:
        carriers = [
            RedriveCarrier(
                sink,
                target_of(sink),
                self._link,
                stage=self._kind,
                observer=self._observer,
                rng=rng,
            )
            for sink in sinks
        ]
        return RedriveWatch(carriers, self._link, rng)

    def _parts(self) -> Iterator[Part]:
        """In the order in which they start. They stop in the reverse order."""
        yield self._traces
        yield Part("ops", self.ops.start, self.ops.stop, _STOP_S)
        yield Part("nats-link", self._link.start, self._link.stop, _STOP_S)
        yield Part("targets", self._check, nothing)
        yield Part("sinks", self._background.start, self._background.stop, _STOP_S)

    async def _check(self) -> None:
        if self._kind == "rule":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_NATS_S):
                    await self._link.wait_up()
        await self._sinks.check()

    async def run(self, *, on_ready: Callable[["SinkProcess"], None] | None = None) -> None:
        """Run until SIGTERM or SIGINT. At SIGHUP, read the certificate of the ops port again.

        Args:
            on_ready: called once all sinks have begun.

        Raises:
            TargetRefused: a target says no at the start; with a line for each.
            PositionError: a stream is not the one that a sink has read.
            StreamError: NATS cannot be used.
        """

        def started() -> None:
            names = [runner.name for runner in self._sinks.runners]
            _log.info(f"{self._kind}s_started", names=names)
            if on_ready is not None:
                on_ready(self)

        await serve(
            Assembly(self._parts()),
            self.ending,
            on_started=started,
            reload=self._transport.reload,
        )


def _link_of(settings: Settings, name: str, survivors: Survivors, rng: random.Random) -> NatsLink:
    return NatsLink(
        nats_address(settings, Role.CONSUMERS),
        renew=lambda: nats_address(settings, Role.CONSUMERS),
        name=name,
        on_up=_nothing_to_subscribe,
        on_ready=_nothing_to_publish,
        on_down=nothing,
        on_failure=survivors.failed,
        rng=rng,
    )


async def _nothing_to_subscribe(_client: LinkClient) -> None:
    """A sink's readers make their own consumers."""


def _nothing_to_publish(_client: LinkClient) -> None:
    """A sink publishes letters by request."""
