"""The way to JetStream, as the settings want it: server, connection, streams, what an ack is worth.

The composition of `stream/`, as `reception.py` is that of `admission/`. Starts the embedded server
or reaches the operator's, creates or checks the streams, and says why nothing is being stored.
"""

import asyncio
import math
import random
import shutil
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import nats.errors
import structlog

from gateway.edge.errors import TlsError
from gateway.settings import Retention, Settings
from gateway.stream.durability import Durability, probe_durability
from gateway.stream.encoding import DEADLETTERS, EVENTS
from gateway.stream.nats_link import LinkClient, NatsAddress, NatsLink
from gateway.stream.nats_server import EmbeddedServer
from gateway.stream.provision import (
    StreamSettings,
    check_payload,
    choose_strategy,
    provision,
    server_version,
    stream_configs,
)
from gateway.stream.publisher import Publisher
from gateway.stream.store_watch import StoreWatch
from gateway.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)

_PROVISION_ATTEMPTS: Final = 20
_WATCH_S: Final = 0.5


class Backbone:
    """NATS, as far as one node is concerned."""

    def __init__(
        self,
        settings: Settings,
        *,
        node: str,
        publisher: Publisher,
        metrics: Metrics,
        hear: Callable[[LinkClient], Awaitable[None]],
        rng: random.Random,
    ) -> None:
        """
        Args:
            settings: all of them; `nats` and `stream` are read.
            node: this process, in the name of its connection.
            publisher: publishes over the connection made here.
            metrics: where gauges are registered and events counted.
            hear: subscribes on a fresh connection to what is not the publisher's.
            rng: source of jitter.
        """
        self._settings = settings
        self._publisher = publisher
        self._metrics = metrics
        self._hear = hear
        self._rng = rng
        self._store = StoreWatch()
        self._durability: Durability = "unverified"
        self._version = ""
        embedded = not settings.nats.urls
        self.server: EmbeddedServer | None = (
            EmbeddedServer(
                settings.nats.data_dir,
                fsync=settings.stream.durability == "fsync",
                batch_messages_max=settings.publish.batch_messages,
                port=settings.nats.embedded_port,
                rng=rng,
                on_restart=metrics.server_restarted,
            )
            if embedded
            else None
        )
        """The embedded server; None over an operator's."""
        self._link: NatsLink | None = None
        self._name = f"tidegate-{node}"
        self._register_gauges()

    @property
    def client(self) -> LinkClient | None:
        """The connection in use, if there is one."""
        return self._link.client if self._link is not None else None

    @property
    def durability(self) -> Durability:
        """What an acknowledgement is known to mean."""
        return self._durability

    @property
    def trouble(self) -> str | None:
        """Why nothing is being stored right now, or None."""
        trouble = self._publisher.trouble
        return "disk_full" if trouble is not None and self._store.full else trouble

    async def start(self, own: Callable[[asyncio.Task[Any]], None]) -> None:
        """Start or reach the server, and have the streams as they should be.

        Args:
            own: takes each task that keeps it so; if one fails, nothing is stored any more.

        Raises:
            StreamError: no server, one that takes too little, or streams that differ from the
                settings.
            TlsError: files of `nats.tls_*` that cannot be used.
            nats.errors.Error: the server does not want us.
        """
        urls = self._settings.nats.urls
        if self.server is not None:
            own(await self.server.start())
            own(asyncio.create_task(self._watch_store(self.server), name="store-watch"))
            urls = (self.server.url,)
        self._link = link = NatsLink(
            self._address(urls),
            name=self._name,
            on_up=self._on_up,
            on_ready=self._publisher.on_ready,
            on_down=self._publisher.on_down,
            rng=self._rng,
        )
        self._publisher.attach(link)
        link_task = link.start()
        own(link_task)
        await self._provision(link, link_task)
        if self._settings.stream.durability == "fsync" and self._durability != "fsync":
            _log.warning(
                "durability_weaker_than_wanted",
                wanted="fsync",
                real=self._durability,
                hint="set sync_interval: always on the servers, and nats.monitoring_url",
            )

    async def disconnect(self) -> None:
        """Give up the connection; the server goes on."""
        if self._link is not None:
            await self._link.stop()

    async def stop_server(self) -> None:
        """Stop the embedded server, so that everything is on disk."""
        if self.server is not None:
            await self.server.stop()

    def status(self) -> dict[str, Any]:
        """The stream in a page."""
        link = self._link
        return {
            "connected": link is not None and link.client is not None,
            "last_error": (link.last_error or None) if link is not None else None,
            "server_version": self._version,
            "embedded": self.server is not None,
            "strategy": self._publisher.strategy.value,
            "durability": self._durability,
            "durability_wanted": self._settings.stream.durability,
            "replicas": self._settings.stream.replicas,
        }

    @property
    def version(self) -> str:
        """The server's."""
        return self._version

    def _address(self, urls: tuple[str, ...]) -> NatsAddress:
        settings = self._settings.nats
        return NatsAddress(
            urls=urls,
            user=settings.user,
            password=_reveal(settings.password),
            token=_reveal(settings.token),
            credentials_file=_text(settings.credentials_file),
            tls=self._tls(),
            connect_timeout_s=settings.connect_timeout_ms / 1000,
            reconnect_wait_s=settings.reconnect_wait_ms / 1000,
            reconnect_wait_max_s=settings.reconnect_wait_max_ms / 1000,
        )

    def _tls(self) -> ssl.SSLContext | None:
        settings = self._settings.nats
        if settings.tls_ca_file is None and settings.tls_cert_file is None:
            return None
        try:
            context = ssl.create_default_context(cafile=_text(settings.tls_ca_file))
            if settings.tls_cert_file is not None:
                context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
        except (OSError, ssl.SSLError) as exc:
            raise TlsError(f"nats.tls_*: {exc}") from exc
        return context

    async def _watch_store(self, server: EmbeddedServer) -> None:
        """An embedded server whose disk was full needs a restart, and has nobody else to do it."""
        directory = self._settings.nats.data_dir
        while True:
            await asyncio.sleep(_WATCH_S)
            try:
                free = (await asyncio.to_thread(shutil.disk_usage, directory)).free
            except OSError as exc:
                _log.error("disk_unreadable", directory=str(directory), error=str(exc))  # whole
                continue
            was_full = self._store.full
            restart = self._store.observe(self._publisher.trouble, free, time.monotonic())
            if self._store.full and not was_full:
                _log.error("disk_full", directory=str(directory), free_bytes=free)
            if restart:
                _log.warning("nats_server_silent", action="restart", free_bytes=free)
                await server.restart()

    async def _provision(self, link: NatsLink, link_task: asyncio.Task[None]) -> None:
        """Create or check the streams; a server that just started may need a moment for it."""
        stream = self._settings.stream

        def wanted(retention: Retention) -> StreamSettings:
            return StreamSettings(
                replicas=stream.replicas,
                max_age_s=retention.max_age_s,
                max_bytes=retention.max_bytes,
                duplicate_window_s=stream.duplicate_window_s,
                deny_delete=stream.deny_delete,
                deny_purge=stream.deny_purge,
            )

        streams = {EVENTS: wanted(stream.events), DEADLETTERS: wanted(stream.deadletters)}
        for attempt in range(1, _PROVISION_ATTEMPTS + 1):
            connecting = asyncio.create_task(link.wait_up(), name="nats-connecting")
            await asyncio.wait({connecting, link_task}, return_when=asyncio.FIRST_COMPLETED)
            if link_task.done():
                connecting.cancel()
                await link_task
            client = await connecting
            check_payload(client, self._settings.limits.message_bytes)
            try:
                created = await provision(client, stream_configs(streams, server_version(client)))
            except (nats.errors.Error, TimeoutError) as exc:
                if attempt == _PROVISION_ATTEMPTS:
                    raise
                _log.warning("provision_repeated", error=str(exc), attempt=attempt)
                await asyncio.sleep(self._rng.uniform(0.1, 1.0))
            else:
                _log.info("streams_ready", created=created)
                return

    async def _on_up(self, client: LinkClient) -> None:
        """On every fresh connection: the server may be another, of another version."""
        stream = self._settings.stream
        version = server_version(client)
        self._version = ".".join(map(str, version))
        self._publisher.strategy = choose_strategy(
            version, fsync=stream.durability == "fsync", replicas=stream.replicas
        )
        if self.server is not None:
            self._durability = stream.durability
        else:
            self._durability = await probe_durability(self._settings.nats.monitoring_url)
        await self._publisher.on_up(client)
        await self._hear(client)
        self._metrics.reconnected()

    def _register_gauges(self) -> None:
        gauge = self._metrics.gauge
        gauge(
            "tidegate_durability_fsync",
            "1 if an acknowledgement is known to mean synced to disk.",
            lambda: int(self._durability == "fsync"),
        )
        gauge(
            "tidegate_disk_free_bytes",
            "Room on the disk of the embedded nats-server; NaN without one.",
            lambda: math.nan if self._store.free_bytes is None else self._store.free_bytes,
        )
        gauge(
            "tidegate_disk_full",
            "1 while the embedded nats-server's disk has no room.",
            lambda: int(self._store.full),
        )


def _reveal(secret: Any) -> str | None:
    return secret.get_secret_value() if secret is not None else None


def _text(path: Any) -> str | None:
    return str(path) if path is not None else None
