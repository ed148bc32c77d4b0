"""The NATS server of a node: the embedded one, which the node runs, or one that operators run."""

import asyncio
import math
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Protocol

import structlog

from gateway import tasks
from gateway.beats import beat
from gateway.process import Work
from gateway.settings import Settings
from gateway.stream.durability import Durability, probe_durability
from gateway.stream.store_watch import StoreWatch
from gateway.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)

_WATCH_S: Final = 0.5
_ROOMY_WATCH_S: Final = 2.0
_ROOMY_BYTES: Final = 4 << 30
"""No disk is written so fast that this much room is gone within two seconds."""
_STOP_S: Final = 30.0


class NatsServer(Protocol):
    """The server behind the connection of a node."""

    @property
    def embedded(self) -> bool:
        """Whether this node runs it."""

    @property
    def url(self) -> str | None:
        """Where the embedded server is, once it has started; None for operators' own."""

    @property
    def full(self) -> bool:
        """Whether its disk is known to have no room."""

    async def start(self) -> None:
        """Have it running, if that is up to this node."""

    def work(self) -> Iterable[Work]:
        """What looks after it."""

    async def durability(self) -> Durability:
        """What an acknowledgement of it is known to mean."""

    def register_gauges(self, metrics: Metrics) -> None:
        """For the metrics page."""

    async def stop(self) -> None:
        """End it, if this node runs it, so that everything is on disk."""


class OperatorsNats:
    """A server that operators run: nothing is started, looked after or stopped here."""

    embedded = False
    url = None
    full = False

    def __init__(self, monitoring_url: str | None) -> None:
        """
        Args:
            monitoring_url: says how the server writes to its disk, if it is set.
        """
        self._monitoring_url = monitoring_url

    async def start(self) -> None:
        pass

    def work(self) -> Iterable[Work]:
        return ()

    async def durability(self) -> Durability:
        return await probe_durability(self._monitoring_url)

    def register_gauges(self, metrics: Metrics) -> None:
        _register(metrics, StoreWatch())

    async def stop(self) -> None:
        pass


class ServerProcess(Protocol):
    """The process of the embedded server, whoever runs it."""

    @property
    def url(self) -> str:
        """The address and password of the gateway's own user."""

    @property
    def action(self) -> str:
        """What `restart` does here, for the log."""

    async def start(self) -> None:
        """Have it running."""

    async def restart(self) -> None:
        """End it; it is started again."""

    async def stop(self) -> None:
        """End it, so that everything is on disk."""


class SupervisedServer:
    """The embedded server as a worker sees it: its supervisor starts, restarts and stops it."""

    action: Final = "left to the supervisor"

    def __init__(self, url: str) -> None:
        """
        Args:
            url: the address and password of the gateway's user.
        """
        self.url = url

    async def start(self) -> None:
        pass

    async def restart(self) -> None:
        pass

    async def stop(self) -> None:
        pass


class EmbeddedNats:
    """The embedded server, and its disk."""

    embedded = True

    def __init__(
        self, settings: Settings, server: ServerProcess, trouble: Callable[[], str | None]
    ) -> None:
        """
        Args:
            settings: of the gateway.
            server: to run.
            trouble: why the stream stores nothing right now, or None.
        """
        self._directory: Path = settings.nats.data_dir
        self._durability: Durability = settings.stream.durability
        self.server = server
        self._trouble = trouble
        self._store = StoreWatch()

    @property
    def url(self) -> str | None:
        return self.server.url

    @property
    def full(self) -> bool:
        return self._store.full

    async def start(self) -> None:
        """
        Raises:
            ServerError: it does not start.
        """
        await self.server.start()

    def work(self) -> Iterable[Work]:
        yield "store-watch", self._watch_store()

    async def durability(self) -> Durability:
        return self._durability

    def register_gauges(self, metrics: Metrics) -> None:
        _register(metrics, self._store)

    async def stop(self) -> None:
        await tasks.bounded(self.server.stop(), "nats-server-stop", _STOP_S)

    async def _watch_store(self) -> None:
        """Watch the disk, and restart the server if its full disk has stopped it."""
        free = 0
        while True:
            roomy = free >= _ROOMY_BYTES and not self._store.full
            await beat(_ROOMY_WATCH_S if roomy else _WATCH_S)
            try:
                free = (await asyncio.to_thread(shutil.disk_usage, self._directory)).free
            except OSError as exc:
                # The message is whole.
                _log.error("disk_unreadable", directory=str(self._directory), error=str(exc))
                continue
            was_full = self._store.full
            restart = self._store.observe(self._trouble(), free, time.monotonic())
            if self._store.full and not was_full:
                _log.error("disk_full", directory=str(self._directory), free_bytes=free)
            if restart:
                event = "disk_has_room" if was_full else "nats_server_silent"
                _log.warning(event, action=self.server.action, free_bytes=free)
                await self.server.restart()
                self._store.restarted()


def _register(metrics: Metrics, store: StoreWatch) -> None:
    metrics.gauge(
        "tidegate_disk_free_bytes",
        "Room on the disk of the embedded nats-server; NaN without one.",
        lambda: math.nan if store.free_bytes is None else store.free_bytes,
    )
    metrics.gauge(
        "tidegate_disk_full",
        "1 while the embedded nats-server's disk has no room.",
        lambda: int(store.full),
    )
