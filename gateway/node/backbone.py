"""The way to JetStream, as the settings want it: server, connection, streams, what an ack is worth.

The composition of `stream/`, as `reception.py` is that of `admission/`. Starts the embedded server
or reaches the operator's, creates or checks the streams, and says why nothing is being stored.
"""

import asyncio
import math
import random
import shutil
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import nats.errors
import structlog

from gateway import tasks
from gateway.nats_access import nats_address
from gateway.settings import Settings
from gateway.stream.checkup import Denials, missing_rights, missing_streams
from gateway.stream.durability import Durability, probe_durability
from gateway.stream.nats_client import LinkClient, describe
from gateway.stream.nats_link import NatsLink
from gateway.stream.nats_server import EmbeddedServer
from gateway.stream.observer import StreamObserver
from gateway.stream.provision import (
    check_payload,
    choose_strategy,
    provision,
    server_version,
    stream_configs,
)
from gateway.stream.publisher import Publisher
from gateway.stream.rights import Role
from gateway.stream.store_watch import StoreWatch, StreamTrouble
from gateway.streams import embedded_server, stream_settings
from gateway.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)

_WATCH_S: Final = 0.5
_CHECK_S: Final = 5.0
_CHECK_AGAIN_S: Final = 1.0
_PROVISION_AGAIN_S: Final = 2.0
_DISCONNECT_S: Final = 10.0
_STOP_SERVER_S: Final = 30.0
_DENIED_MAX: Final = 100
"""Of distinct denials kept for the log and `/status`: each may name a device's subject."""


class Backbone:
    """NATS, as far as one node is concerned."""

    def __init__(
        self,
        settings: Settings,
        *,
        node: str,
        publisher: Publisher,
        metrics: Metrics,
        observer: StreamObserver,
        hear: Callable[[LinkClient], Awaitable[None]],
        on_failure: Callable[[BaseException], None],
        rng: random.Random,
    ) -> None:
        """
        Args:
            settings: all of them; `nats` and `stream` are read.
            node: this process, in the name of its connection.
            publisher: publishes over the connection made here.
            metrics: where gauges are registered.
            observer: counts reconnections and restarts.
            hear: subscribes on a fresh connection to what is not the publisher's.
            on_failure: hears why nothing will ever be stored: no server, one that takes too little,
                streams that differ from the settings, settings that cannot be used.
            rng: source of jitter.
        """
        self._settings = settings
        self._publisher = publisher
        self._observer = observer
        self._hear = hear
        self._rng = rng
        self._store = StoreWatch()
        self._kept_trouble = StreamTrouble()
        self._durability: Durability = "unverified"
        self._version = ""
        self._on_failure = on_failure
        self._crew = tasks.Crew(on_failure)
        self._ready = asyncio.Event()
        self._denials = Denials()
        self._denied: set[str] = set()
        self._missing_rights: list[str] = []
        self._missing_streams: list[str] = []
        self._provision_error = ""
        self.server: EmbeddedServer | None = (
            None
            if settings.nats.urls
            else embedded_server(
                settings, rng=rng, on_restart=observer.server_restarted, on_failure=on_failure
            )
        )
        """The embedded server; None over an operator's."""
        self._link: NatsLink | None = None
        self._name = f"tidegate-{node}"
        self._register_gauges(metrics)

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
        """Why nothing is being stored right now, or None. `config/README.md` lists the causes."""
        if self._store.full:
            return "disk_full"
        link = self._link
        if link is None or link.client is None:
            return "nats_refused" if link is not None and link.refused else "nats_disconnected"
        if self._missing_rights:
            return "nats_rights"
        if self._missing_streams:
            return "no_stream"
        if not self._ready.is_set():
            return "starting"
        return self._stream_trouble

    @property
    def _stream_trouble(self) -> str | None:
        publisher = self._publisher
        return self._kept_trouble.observe(
            publisher.trouble,
            stored=publisher.stored_messages,
            pending=publisher.pending_messages,
        )

    def start(self) -> None:
        """Begin: start or reach the server, have the streams as they should be, and watch them."""
        self._crew.start(self._run(), "backbone")

    async def wait_ready(self) -> None:
        """Wait until messages can be stored for the first time."""
        await self._ready.wait()

    async def stop(self) -> None:
        """Give up the connection, then stop the embedded server, so that everything is on disk."""
        await tasks.bounded(self._disconnect(), "nats-disconnect", _DISCONNECT_S)
        if self.server is not None:
            await tasks.bounded(self.server.stop(), "nats-server-stop", _STOP_SERVER_S)

    async def _disconnect(self) -> None:
        await self._crew.close()
        if self._link is not None:
            await self._link.stop()

    async def _run(self) -> None:
        """The life of this part, from the first connection on."""
        if self.server is not None:
            self._crew.start(self._watch_store(), "store-watch")
            await self.server.start()
        url = self.server.url if self.server is not None else None
        self._link = link = NatsLink(
            nats_address(self._settings, Role.GATEWAY, embedded_url=url),
            name=self._name,
            on_up=self._on_up,
            on_ready=self._publisher.on_ready,
            on_down=self._on_down,
            on_failure=self._on_failure,
            on_denied=self._on_denied,
            rng=self._rng,
        )
        link.start()
        await self._provision(link)
        if self._settings.stream.durability == "fsync" and self._durability != "fsync":
            _log.warning(
                "durability_weaker_than_wanted",
                wanted="fsync",
                real=self._durability,
                hint="set sync_interval: always on the servers, and nats.monitoring_url",
            )
        while True:
            if not self._missing_rights and not self._missing_streams:
                self._ready.set()
            pause_s = _CHECK_S if self.trouble is None else _CHECK_AGAIN_S
            await asyncio.sleep(self._rng.uniform(0.8, 1.2) * pause_s)
            await self._check(link)

    def status(self) -> dict[str, Any]:
        """The stream in a page."""
        link = self._link
        return {
            "connected": link is not None and link.client is not None,
            "last_error": (link.last_error or None) if link is not None else None,
            "missing_rights": self._missing_rights,
            "missing_streams": self._missing_streams,
            "denied": sorted(self._denied),
            "provision_error": self._provision_error or None,
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

    async def _watch_store(self) -> None:
        """Watch the disk, and restart an embedded server that its full disk has stopped."""
        assert self.server is not None
        directory = self._settings.nats.data_dir
        while True:
            await asyncio.sleep(_WATCH_S)
            try:
                free = (await asyncio.to_thread(shutil.disk_usage, directory)).free
            except OSError as exc:
                _log.error("disk_unreadable", directory=str(directory), error=str(exc))  # whole
                continue
            was_full = self._store.full
            restart = self._store.observe(self._stream_trouble, free, time.monotonic())
            if self._store.full and not was_full:
                _log.error("disk_full", directory=str(directory), free_bytes=free)
            if restart:
                event = "disk_has_room" if was_full else "nats_server_silent"
                _log.warning(event, action="restart", free_bytes=free)
                await self.server.restart()
                self._store.restarted()

    async def _provision(self, link: NatsLink) -> None:
        """Create or check the streams, until it succeeds or they cannot be used.

        A server that has just started, or a cluster without a leader, needs a moment.
        """
        streams = stream_settings(self._settings)
        while True:
            client = await link.wait_up()
            check_payload(client, self._settings.limits.message_bytes)
            try:
                created = await provision(client, stream_configs(streams, server_version(client)))
            except (nats.errors.Error, TimeoutError) as exc:
                error = describe(exc)
                if error != self._provision_error:
                    _log.warning("provision_repeated", error=error, denied=sorted(self._denied))
                self._provision_error = error
                await asyncio.sleep(self._rng.uniform(0.1, _PROVISION_AGAIN_S))
                if link.client is not None and self._missing_rights:
                    await self._check(link)
            else:
                self._provision_error = ""
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
        await self._check_rights(client)
        self._observer.reconnected()

    def _on_down(self) -> None:
        self._denials = Denials()
        self._denied.clear()
        self._publisher.on_down()

    def _on_denied(self, text: str) -> None:
        """The server forbade something: say it once a connection, however often it happens."""
        self._denials.add(text)
        if text not in self._denied and len(self._denied) < _DENIED_MAX:
            self._denied.add(text)
            _log.warning("nats_denied", error=text)

    async def _check_rights(self, client: LinkClient) -> None:
        before = self._missing_rights
        self._missing_rights = await missing_rights(client, self._denials)
        if self._missing_rights and self._missing_rights != before:
            _log.error(
                "nats_rights_missing",
                missing=self._missing_rights,
                hint="config/README.md lists what the gateway's user needs",
            )
        elif before and not self._missing_rights:
            _log.info("nats_rights_granted")

    async def _check(self, link: NatsLink) -> None:
        """Look again whether NATS lets us work."""
        client = link.client
        if client is None:
            return
        try:
            if self._missing_rights:
                if any(right.startswith("subscribe") for right in self._missing_rights):
                    await client.discard()  # subscriptions are made on a fresh connection
                    return
                await self._check_rights(client)
            if not self._missing_rights:
                self._say_missing(await missing_streams(client))
        except (nats.errors.Error, TimeoutError) as exc:
            _log.debug("checkup_unanswered", error=describe(exc))  # the publisher sees it too

    def _say_missing(self, missing: list[str]) -> None:
        if missing and missing != self._missing_streams:
            _log.error(
                "stream_missing",
                streams=missing,
                hint="restore it, or make it anew: tidegate provision --apply",
            )
        elif self._missing_streams and not missing:
            _log.info("stream_is_back", streams=self._missing_streams)
        self._missing_streams = missing

    def _register_gauges(self, metrics: Metrics) -> None:
        gauge = metrics.gauge
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
