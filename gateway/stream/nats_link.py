"""The connection to NATS: kept up with jittered reconnects, handed to whoever publishes.

nats-py can reconnect by itself, but waits a fixed time (so every gateway of a fleet returns in the
same instant) and closes for good on an authorization error. Here each connection is a fresh client
and the wait is full jitter, so a NATS restart is not a storm of our own making.
"""

import asyncio
import contextlib
import random
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from gateway.stream.errors import ConnectError

_log = structlog.get_logger(__name__)

_PING_INTERVAL_S: Final = 5
_PINGS_OUTSTANDING_MAX: Final = 2  # a silent server is given up after 15 s


Headers = dict[str, str] | None
DirectHandler = Callable[[str, bytes, Headers], None]
"""Takes subject, payload and headers of a message, at once."""
RawHandler = Callable[[bytes, bytes, bytes, bytes | None], None]
"""Takes subject, reply, payload and the header block as it came, at once."""


class LinkClient(Client):
    """nats-py's client, with subscriptions whose messages do not wait in a queue for a task.

    An ack passes here: each turn of the loop it waits is a turn every device waits.
    """

    def __init__(self) -> None:
        super().__init__()
        self._direct: dict[int, DirectHandler] = {}
        self._raw: dict[int, RawHandler] = {}

    async def subscribe_raw(self, subject: str, handler: RawHandler) -> Subscription:
        """As `subscribe_direct`, for who reads a stream: headers are left as they came.

        nats-py makes a dictionary of each message's headers, which costs more than all the rest.
        """
        subscription = await self.subscribe(subject)
        self._raw[subscription._id] = handler  # noqa: SLF001  # no public name for it
        return subscription

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        handler = self._raw.get(sid)
        if handler is not None:
            handler(subject, reply, data, headers)
        else:
            await super()._process_msg(sid, subject, reply, data, headers)  # type: ignore[arg-type]  # it takes None

    async def subscribe_direct(self, subject: str, handler: DirectHandler) -> None:
        """Have `handler` called from the reading task, for every message on `subject`."""
        subscription = await self.subscribe(subject)
        self._direct[subscription._id] = handler  # noqa: SLF001  # no public name for it

    def _build_message(
        self,
        sid: int,
        subject: bytes,
        reply: bytes,
        data: bytes,
        headers: Headers,
    ) -> Any:
        handler = self._direct.get(sid)
        if handler is None:
            return super()._build_message(sid, subject, reply, data, headers)
        handler(subject.decode(), data, headers)
        return None  # nothing to queue


@dataclass(frozen=True, slots=True)
class NatsAddress:
    """Where NATS is and how to sign in. Secrets are hidden from repr."""

    urls: tuple[str, ...]
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    credentials_file: str | None = None
    tls: ssl.SSLContext | None = None
    connect_timeout_s: float = 5.0
    reconnect_wait_s: float = 0.1
    reconnect_wait_max_s: float = 5.0

    def options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "user": self.user,
            "password": self.password,
            "token": self.token,
            "user_credentials": self.credentials_file,
            "tls": self.tls,
        }
        return {name: value for name, value in options.items() if value is not None}


class NatsLink:
    """One connection to NATS at a time, for ever, until `stop`."""

    def __init__(
        self,
        address: NatsAddress,
        *,
        name: str,
        on_up: Callable[[LinkClient], Awaitable[None]],
        on_ready: Callable[[], None],
        on_down: Callable[[], None],
        rng: random.Random,
    ) -> None:
        """
        Args:
            address: servers and sign-in.
            name: how the server shows this connection.
            on_up: subscribes what is needed on a fresh connection, before it is used.
            on_ready: called once that connection is in use.
            on_down: called once when that connection is lost.
            rng: source of jitter.
        """
        self._address = address
        self._name = name
        self._on_up = on_up
        self._on_ready = on_ready
        self._on_down = on_down
        self._rng = rng
        self._client: LinkClient | None = None
        self._up = asyncio.Event()
        self._stopping = False
        self._known_urls: list[str] = list(address.urls)
        self._task: asyncio.Task[None] | None = None
        self.last_error = "not connected yet"
        """What went wrong last; empty if nothing has since it is connected."""

    @property
    def client(self) -> LinkClient | None:
        """The live client, or None while there is no connection."""
        return self._client

    def start(self) -> asyncio.Task[None]:
        """Begin connecting. The returned task fails if the connection can never work."""
        self._task = asyncio.create_task(self._keep_up(), name="nats-link")
        return self._task

    async def wait_up(self) -> LinkClient:
        """Wait for a connection."""
        await self._up.wait()
        assert self._client is not None
        return self._client

    async def stop(self) -> None:
        """Close the connection and connect no more."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def write(self, data: bytes) -> bool:
        """Hand `data`, complete protocol commands, to the socket now; False without a connection.

        nats-py's own `publish` takes one message, validates what is allow-listed already, and
        leaves the bytes to a task that runs after the loop's turn: too dear per message, and too
        late when a thousand sockets are ready in one turn. A batch is written here in one call.
        """
        client = self._client
        if client is None or not client.is_connected:
            return False
        client._transport.write(data)  # type: ignore[union-attr]  # noqa: SLF001  # see above
        return True

    async def _keep_up(self) -> None:
        failures = 0
        wait_s, wait_max_s = self._address.reconnect_wait_s, self._address.reconnect_wait_max_s
        loop = asyncio.get_running_loop()
        # Not for ever: nats-py can swallow the cancellation that `stop` sends.
        while not self._stopping:
            if failures:
                ceiling = min(wait_max_s, wait_s * 2 ** min(failures, 16))
                await asyncio.sleep(self._rng.uniform(0, ceiling))
            lost = asyncio.Event()
            client = await self._connect(lost)
            if client is None:
                failures += 1
                continue
            up_since = loop.time()
            self._client = client
            self.last_error = ""
            self._up.set()
            _log.info("nats_connected", server=str(client.connected_server_version))
            self._on_ready()
            try:
                await lost.wait()
            except asyncio.CancelledError:
                await client.close()
                raise
            finally:
                self._up.clear()
                self._client = None
            self._remember_cluster(client)
            self.last_error = "connection lost"
            _log.warning("nats_connection_lost")
            self._on_down()
            await client.close()
            # A server that ends each connection at once is no better than none.
            lasting = loop.time() - up_since > wait_max_s
            failures = 0 if lasting else failures + 1

    async def _connect(self, lost: asyncio.Event) -> LinkClient | None:
        async def closed() -> None:
            lost.set()

        async def failed(error: Exception) -> None:
            # Once a connection: whoever lacks a permission is told so for every message.
            if self._client is not None and not self.last_error:
                _log.warning("nats_error", error=_describe(error))
            self.last_error = _describe(error)

        urls = self._known_urls[:]
        self._rng.shuffle(urls)
        for url in urls:
            client = LinkClient()
            usable = False
            try:
                async with asyncio.timeout(self._address.connect_timeout_s):
                    await client.connect(
                        url,
                        name=self._name,
                        allow_reconnect=False,
                        # Or a first connection too is tried 60 times, 2 s apart, by nats-py itself:
                        # two minutes with a dead server while another one waits.
                        max_reconnect_attempts=1,
                        reconnect_time_wait=0,
                        ping_interval=_PING_INTERVAL_S,
                        max_outstanding_pings=_PINGS_OUTSTANDING_MAX,
                        disconnected_cb=closed,
                        closed_cb=closed,
                        error_cb=failed,
                        **self._address.options(),
                    )
                await self._on_up(client)
                await client.flush()
                usable = client.is_connected
            except nats.errors.NoServersError:
                pass  # `failed` has heard why
            except (OSError, nats.errors.Error, TimeoutError) as exc:
                self.last_error = _describe(exc)
            except (ValueError, TypeError) as exc:
                raise ConnectError(f"NATS settings cannot be used: {exc}") from exc
            finally:
                if not usable:  # cancelled too: nats-py leaves its socket open
                    await client.close()
            if usable:
                return client
            lost.clear()
        _log.warning("nats_unreachable", error=self.last_error)
        return None

    def _remember_cluster(self, client: Client) -> None:
        """Servers the cluster told us about are worth trying when the configured ones are gone."""
        for server in client.discovered_servers:
            url = server.geturl()
            if url not in self._known_urls:
                self._known_urls.append(url)


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
