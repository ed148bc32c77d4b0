"""The connection to NATS: kept up with jittered reconnects, handed to the part that publishes.

Each connection is a fresh client (`client.py` says why), and the wait before the next attempt
has full jitter, so a restart of NATS does not bring all gateways back at once.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import nats.errors
import structlog
from nats.aio.client import Client

from gateway import tasks
from gateway.jitter import full_jitter_s
from gateway.stream.errors import StreamError, Unreachable
from gateway.stream.link.client import LinkClient
from gateway.stream.link.dialing import Hooks, NatsAddress, describe, dial, without_secret

_log = structlog.get_logger(__name__)

_FLUSH_S: Final = 5


Order = Callable[[list[str]], Awaitable[list[str]]]
"""Brings URLs into the order in which they are to be tried."""


@dataclass(frozen=True, slots=True)
class _LinkHooks:
    """The callbacks of a link; see `NatsLink.__init__`."""

    up: Callable[[LinkClient], Awaitable[None]]
    ready: Callable[[LinkClient], None]
    down: Callable[[], None]
    denied: Callable[[str], None]


class _Trouble:
    """Why there is no connection, each reason logged once until it changes."""

    def __init__(self) -> None:
        self.refused = False
        self.last_error = "not connected yet"
        self._logged: dict[str, str] = {}

    def connected(self) -> None:
        self.last_error = ""
        self._logged.clear()

    def lost(self) -> None:
        self.last_error = self.last_error or "connection lost"
        _log.warning("nats_connection_lost", error=self.last_error)

    def unusable(self, url: str, reason: str, *, refused: bool) -> None:
        """An attempt to connect failed."""
        self.last_error = reason
        self.refused = refused
        if reason != self._logged.get(url):
            self._logged[url] = reason
            _log.warning("nats_unreachable", url=without_secret(url), error=reason)

    def note(self, reason: str, *, connected: bool) -> None:
        """Something went wrong on a connection. Logged once a connection: errors come in masses."""
        if connected and not self.last_error:
            _log.warning("nats_error", error=reason)
        self.last_error = reason


class NatsLink:
    """One connection to NATS at a time, made again whenever it is lost, until `stop`.

    Owns its task: `start` begins it, `stop` ends it, `on_failure` hears if it fails.
    """

    def __init__(
        self,
        address: NatsAddress,
        *,
        name: str,
        on_up: Callable[[LinkClient], Awaitable[None]],
        on_ready: Callable[[LinkClient], None],
        on_down: Callable[[], None],
        on_failure: Callable[[BaseException], None],
        rng: random.Random,
        on_denied: Callable[[str], None] = lambda _subject: None,
        renew: Callable[[], NatsAddress] | None = None,
        order: Order | None = None,
    ) -> None:
        """
        Args:
            address: servers and sign-in.
            name: how the server shows this connection.
            on_up: subscribes what is needed on a fresh connection, before it is used.
            on_ready: called once that connection is in use.
            on_down: called once when that connection is lost.
            on_failure: hears why no connection can ever be made; the link has given up then.
            rng: source of jitter.
            on_denied: hears of each permission the server denies, in the server's words.
            renew: gives the address anew before each attempt. An embedded server that was started
                again has another port and other passwords, and leaves them in a file.
            order: puts the server first that is to be tried first; without it, chance decides.
        """
        self._address = address
        self._name = name
        self._hooks = _LinkHooks(on_up, on_ready, on_down, on_denied)
        self._rng = rng
        self._renew = renew
        self._order = order
        self._client: LinkClient | None = None
        self._up = asyncio.Event()
        self._stopping = False
        self._known_urls: list[str] = list(address.urls)
        self._crew = tasks.Crew(on_failure)
        self._trouble = _Trouble()

    @property
    def client(self) -> LinkClient | None:
        """The live client, or None while there is no connection."""
        return self._client

    @property
    def refused(self) -> bool:
        """Whether the last attempt met a server that refuses us, or that we do not trust."""
        return self._trouble.refused

    @property
    def last_error(self) -> str:
        """What went wrong last; empty if nothing did since the connection was made."""
        return self._trouble.last_error

    def start(self) -> None:
        """Begin connecting."""
        self._crew.start(self._keep_up(), "nats-link")

    async def wait_up(self) -> LinkClient:
        """Wait for a connection."""
        while self._client is None:  # it may be lost again before this task runs
            await self._up.wait()
        return self._client

    async def stop(self) -> None:
        """Close the connection and connect no more."""
        # Set this first: nats-py can swallow the cancellation, and the task would reconnect.
        self._stopping = True
        await self._crew.close()

    async def _keep_up(self) -> None:
        failures = 0
        wait_s, wait_max_s = self._address.reconnect_wait_s, self._address.reconnect_wait_max_s
        while not self._stopping:
            if failures:
                await asyncio.sleep(
                    full_jitter_s(self._rng, failures, first_s=wait_s, max_s=wait_max_s)
                )
            connection = await self._connect()
            if connection is None:
                failures += 1
                continue
            lasted_s = await self._use(*connection)
            # A server that ends each connection at once is no better than one that is away.
            failures = 0 if lasted_s > wait_max_s else failures + 1

    async def _use(self, client: LinkClient, lost: asyncio.Event) -> float:
        """The life of one connection.

        Returns:
            How long it lasted, in seconds.
        """
        loop = asyncio.get_running_loop()
        up_since = loop.time()
        self._client = client
        self._trouble.connected()
        self._up.set()
        server = client.connected_server_version
        _log.info("nats_connected", version=f"{server.major}.{server.minor}.{server.patch}")
        try:
            self._hooks.ready(client)
            if not self._stopping:
                await lost.wait()
            return loop.time() - up_since
        finally:
            self._up.clear()
            self._client = None
            if not self._stopping:
                self._remember_cluster(client)
                self._trouble.lost()
                self._hooks.down()
            await client.discard()

    async def _connect(self) -> tuple[LinkClient, asyncio.Event] | None:
        """A usable connection and the event of its loss, of the first server that gives one."""
        if self._renew is not None:
            try:
                self._address = self._renew()
            except StreamError as exc:
                self._trouble.unusable("", str(exc), refused=False)
                return None
            self._known_urls = list(self._address.urls)
        urls = self._known_urls[:]
        self._rng.shuffle(urls)
        if self._order is not None:
            urls = await self._order(urls)
        for url in urls:
            lost = asyncio.Event()
            hooks = Hooks(closed=lost.set, denied=self._hooks.denied, failed=self._note)
            try:
                client = await dial(url, self._address, name=self._name, hooks=hooks)
            except Unreachable as exc:
                self._trouble.unusable(url, str(exc), refused=exc.refused)
                continue
            if await self._prepared(client, url):
                return client, lost
        return None

    async def _prepared(self, client: LinkClient, url: str) -> bool:
        """Whether a fresh connection has its subscriptions; if not, it is closed."""
        usable = False
        try:
            await self._hooks.up(client)
            await client.flush(timeout=_FLUSH_S)
            usable = client.is_connected
        except (OSError, nats.errors.Error, TimeoutError) as exc:
            self._trouble.unusable(url, describe(exc), refused=False)
        finally:
            if not usable:
                await client.discard()
        return usable

    def _note(self, reason: str) -> None:
        self._trouble.note(reason, connected=self._client is not None)

    def _remember_cluster(self, client: Client) -> None:
        """Remember the servers of the cluster, to try them when the configured ones are gone."""
        for server in client.discovered_servers:
            url = server.geturl()
            if url not in self._known_urls:
                self._known_urls.append(url)
