"""The way to JetStream, as the settings want it: server, connection, streams, what an ack is worth.

Starts the embedded server or reaches the operators', creates or checks the streams, and says why
nothing is being stored.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import nats.errors
import structlog

from gateway import tasks
from gateway.nats_access import nats_address
from gateway.node.basis import Basis
from gateway.node.stream.nats_permits import NatsPermits
from gateway.node.stream.nats_server import (
    EmbeddedNats,
    NatsServer,
    OperatorsNats,
    SupervisedServer,
)
from gateway.settings import Settings
from gateway.stream.durability import Durability
from gateway.stream.lanes.publisher import Publisher
from gateway.stream.link.client import LinkClient
from gateway.stream.link.dialing import describe
from gateway.stream.link.leading import LeaderFirst
from gateway.stream.link.link import NatsLink
from gateway.stream.provisioning.provision import (
    check_payload,
    choose_strategy,
    provision,
    server_version,
    stream_configs,
)
from gateway.stream.server.roles import Role
from gateway.stream.store_watch import StreamTrouble
from gateway.streams import embedded_server, stream_settings

_log = structlog.get_logger(__name__)

_CHECK_S: Final = 5.0
_CHECK_AGAIN_S: Final = 1.0
_PROVISION_AGAIN_S: Final = 2.0
_DISCONNECT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What is known of the server, since the last connection to it."""

    version: str = ""
    durability: Durability = "unverified"
    """What an acknowledgement is known to mean."""


class StreamHealth:
    """Why the stream stores nothing, as the publisher sees it; kept until something is stored."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._kept = StreamTrouble()

    def trouble(self) -> str | None:
        publisher = self._publisher
        return self._kept.observe(
            publisher.trouble,
            stored=publisher.stored_messages,
            pending=publisher.pending_messages,
        )


def server_of(basis: Basis, health: StreamHealth) -> NatsServer:
    """The server that the settings name: operators' own, or the embedded one."""
    settings = basis.settings
    if settings.nats.urls:
        return OperatorsNats(settings.nats.monitoring_url)
    if basis.place is not None and basis.place.nats_url is not None:
        return EmbeddedNats(settings, SupervisedServer(basis.place.nats_url), health.trouble)
    server = embedded_server(
        settings,
        rng=basis.rng,
        on_restart=basis.observers.stream.server_restarted,
        on_failure=basis.ending.fail,
    )
    return EmbeddedNats(settings, server, health.trouble)


class Backbone:
    """NATS, as far as one node is concerned."""

    def __init__(
        self,
        basis: Basis,
        *,
        publisher: Publisher,
        hear: Callable[[LinkClient], Awaitable[None]],
    ) -> None:
        """
        Args:
            basis: as everywhere. Its ending hears why nothing will ever be stored: no server, one
                that takes too little, streams that differ from the settings, settings that cannot
                be used.
            publisher: publishes over the connection made here.
            hear: subscribes on a fresh connection to what is not the publisher's.
        """
        self._basis = basis
        self._publisher = publisher
        self._hear = hear
        self._health = StreamHealth(publisher)
        self._permits = NatsPermits()
        self._facts = ServerFacts()
        self._provision_error = ""
        self._crew = tasks.Crew(basis.ending.fail)
        self._ready = asyncio.Event()
        self._link: NatsLink | None = None
        self._linked = asyncio.Event()
        self.server = server_of(basis, self._health)
        self.server.register_gauges(basis.metrics)
        basis.metrics.gauge(
            "tidegate_durability_fsync",
            "1 if an acknowledgement is known to mean synced to disk.",
            lambda: int(self._facts.durability == "fsync"),
        )
        basis.metrics.gauge(
            "tidegate_durability_fsync_wanted",
            "1 if the settings ask for acknowledgements that mean synced to disk.",
            lambda: int(basis.settings.stream.durability == "fsync"),
        )

    @property
    def _settings(self) -> Settings:
        return self._basis.settings

    @property
    def facts(self) -> ServerFacts:
        """What is known of the server."""
        return self._facts

    @property
    def trouble(self) -> str | None:
        """Why nothing is being stored right now, or None. `config/README.md` lists the causes."""
        if self.server.full:
            return "disk_full"
        link = self._link
        if link is None or link.client is None:
            return "nats_refused" if link is not None and link.refused else "nats_disconnected"
        if self._permits.trouble is not None:
            return self._permits.trouble
        if not self._ready.is_set():
            return "starting"
        return self._health.trouble()

    # The connection, for other parts (`gateway.stream.reading.reader.Link`)

    @property
    def client(self) -> LinkClient | None:
        """The live connection, or None."""
        return self._link.client if self._link is not None else None

    async def wait_up(self) -> LinkClient:
        """Wait for a connection."""
        await self._linked.wait()
        assert self._link is not None
        return await self._link.wait_up()

    def start(self) -> None:
        """Begin: start or reach the server, have the streams as they should be, and watch them."""
        self._crew.start(self._run(), "backbone")

    async def wait_ready(self) -> None:
        """Wait until messages can be stored for the first time."""
        await self._ready.wait()

    async def stop(self) -> None:
        """Give up the connection, then stop the embedded server, so that everything is on disk."""
        await tasks.bounded(self._disconnect(), "nats-disconnect", _DISCONNECT_S)
        await self.server.stop()

    async def _disconnect(self) -> None:
        await self._crew.close()
        if self._link is not None:
            await self._link.stop()

    async def _run(self) -> None:
        """The life of this part, from the first connection on."""
        for name, work in self.server.work():
            self._crew.start(work, name)
        await self.server.start()
        link = self._link = self._make_link()
        self._linked.set()
        link.start()
        await self._provision(link)
        self._say_durability()
        while True:
            if self._permits.trouble is None:
                self._ready.set()
            pause_s = _CHECK_S if self.trouble is None else _CHECK_AGAIN_S
            await asyncio.sleep(self._basis.rng.uniform(0.8, 1.2) * pause_s)
            if link.client is not None:
                await self._permits.look(link.client)

    def _make_link(self) -> NatsLink:
        address = nats_address(self._settings, Role.GATEWAY, embedded_url=self.server.url)
        name = f"tidegate-{self._basis.node}"
        replicated = self._settings.stream.replicas > 1
        return NatsLink(
            address,
            name=name,
            order=LeaderFirst.of(address, name).order if replicated else None,
            on_up=self._on_up,
            on_ready=self._publisher.on_ready,
            on_down=self._on_down,
            on_failure=self._basis.ending.fail,
            on_denied=self._permits.on_denied,
            rng=self._basis.rng,
        )

    def _say_durability(self) -> None:
        wanted, real = self._settings.stream.durability, self._facts.durability
        if wanted == "fsync" and real != "fsync":
            _log.warning(
                "durability_weaker_than_wanted",
                wanted=wanted,
                real=real,
                hint="set sync_interval: always on the servers, and nats.monitoring_url",
            )

    def status(self) -> dict[str, Any]:
        """The stream in a page."""
        link = self._link
        return {
            "connected": link is not None and link.client is not None,
            "last_error": (link.last_error or None) if link is not None else None,
            **self._permits.status(),
            "provision_error": self._provision_error or None,
            "server_version": self._facts.version,
            "embedded": self.server.embedded,
            "strategy": self._publisher.strategy.value,
            "durability": self._facts.durability,
            "durability_wanted": self._settings.stream.durability,
            "replicas": self._settings.stream.replicas,
        }

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
                    _log.warning("provision_repeated", error=error, denied=self._permits.denied)
                self._provision_error = error
                await asyncio.sleep(self._basis.rng.uniform(0.1, _PROVISION_AGAIN_S))
                if link.client is not None and self._permits.rights_missing:
                    await self._permits.look(link.client)
            else:
                self._provision_error = ""
                _log.info("streams_ready", created=created)
                return

    async def _on_up(self, client: LinkClient) -> None:
        """On every fresh connection: the server may be another, of another version."""
        stream = self._settings.stream
        version = server_version(client)
        self._publisher.strategy = choose_strategy(
            version,
            fsync=stream.durability == "fsync",
            replicas=stream.replicas,
            alone=self._settings.cluster.redis_url is None,
        )
        self._facts = ServerFacts(".".join(map(str, version)), await self.server.durability())
        await self._publisher.on_up(client)
        await self._hear(client)
        await self._permits.check_rights(client)
        self._basis.observers.stream.reconnected()

    def _on_down(self) -> None:
        self._permits.on_down()
        self._publisher.on_down()
