"""The connection to NATS: kept up with jittered reconnects, handed to whoever publishes.

nats-py can reconnect by itself, but waits a fixed time (so every gateway of a fleet returns in the
same instant) and closes for good on an authorization error. Here each connection is a fresh client
and the wait is full jitter, so a NATS restart is not a storm of our own making.
"""

import asyncio
import random
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import nats.errors
import nkeys
import structlog
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from gateway import tasks
from gateway.stream.errors import ConnectError, StreamError, Unreachable

_log = structlog.get_logger(__name__)

_PING_INTERVAL_S: Final = 5
_PINGS_OUTSTANDING_MAX: Final = 2  # a silent server is given up after 15 s
_CLOSE_S: Final = 1.0
_FLUSH_S: Final = 5
_DENIED: Final = "permissions violation"
_REFUSALS: Final = ("Authorization", "Authentication", "SSL", "Certificate", "certificate")
"""Words of an error that waiting does not cure."""


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

    async def discard(self) -> None:
        """Close within a second, whatever state the connection is in.

        `close` alone can wait for ever: after a refused certificate it waits for the transport
        that the TLS handshake has replaced.
        """
        closing = asyncio.create_task(self.close(), name="nats-close")
        try:
            await asyncio.wait({closing}, timeout=_CLOSE_S)
        finally:
            if not closing.done():
                await tasks.end(closing)
            elif not closing.cancelled() and closing.exception() is not None:
                _log.debug("nats_close_failed", error=repr(closing.exception()))


@dataclass(frozen=True, slots=True)
class NatsAddress:
    """Where NATS is and how to sign in. Secrets are hidden from repr."""

    urls: tuple[str, ...] = field(repr=False)  # the embedded server's holds its password
    inbox_prefix: str = "_INBOX"
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    credentials_file: str | None = None
    tls: ssl.SSLContext | None = None
    connect_timeout_s: float = 4.0
    reconnect_wait_s: float = 0.1
    reconnect_wait_max_s: float = 5.0

    def options(self) -> dict[str, Any]:
        """The keyword arguments of nats-py's `connect` for reaching a server and signing in."""
        options: dict[str, Any] = {
            "connect_timeout": self.connect_timeout_s,
            "inbox_prefix": self.inbox_prefix,
            "user": self.user,
            "password": self.password,
            "token": self.token,
            "user_credentials": self.credentials_file,
            "tls": self.tls,
        }
        return {name: value for name, value in options.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a connection tells while it lasts."""

    closed: Callable[[], None] = lambda: None
    """The connection is gone. May be called more than once."""
    denied: Callable[[str], None] = lambda _subject: None
    """The server forbade something; in its words."""
    failed: Callable[[str], None] = lambda _reason: None
    """Something else went wrong."""


async def dial(url: str, address: NatsAddress, *, name: str, hooks: Hooks) -> LinkClient:
    """Try one server once.

    Args:
        url: the server.
        address: how to sign in.
        name: how the server shows this connection.
        hooks: of the connection.

    Raises:
        Unreachable: the server is away, does not want us, or is not trusted; with the reason.
        ConnectError: the settings can never work.
    """

    async def closed() -> None:
        hooks.closed()

    reasons: list[str] = []

    async def failed(error: Exception) -> None:
        reasons.append(describe(error))
        if _DENIED in str(error).lower():
            hooks.denied(str(error).removeprefix("nats: "))
        else:
            hooks.failed(describe(error))

    client = LinkClient()
    connected = False
    try:
        async with asyncio.timeout(address.connect_timeout_s):
            await client.connect(
                url,
                name=name,
                allow_reconnect=False,
                # A first connection too is tried 60 times, 2 s apart, by nats-py itself.
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                ping_interval=_PING_INTERVAL_S,
                max_outstanding_pings=_PINGS_OUTSTANDING_MAX,
                disconnected_cb=closed,
                closed_cb=closed,
                error_cb=failed,
                **address.options(),
            )
        connected = client.is_connected
    except nats.errors.NoServersError as exc:
        raise _unreachable(reasons[-1] if reasons else describe(exc)) from None
    except TimeoutError:
        # The handshake may have failed long before: nats-py then waits for what never comes.
        late = f"no answer within {address.connect_timeout_s:g} s"
        raise _unreachable(reasons[-1] if reasons else late) from None
    except (OSError, nats.errors.Error) as exc:
        raise _unreachable(describe(exc)) from exc
    except (ValueError, TypeError, nkeys.NkeysError) as exc:
        raise ConnectError(f"NATS settings cannot be used: {describe(exc)}") from exc
    finally:
        if not connected:  # cancelled too: nats-py leaves its socket open
            await client.discard()
    if not connected:
        raise Unreachable("connection lost")
    return client


def _unreachable(reason: str) -> Unreachable:
    return Unreachable(reason, refused=any(word in reason for word in _REFUSALS))


async def connect_once(
    address: NatsAddress, *, name: str, hooks: Hooks | None = None
) -> LinkClient:
    """Connect to the first server of `address` that can be reached, for a command.

    The caller closes the client. It does not reconnect by itself.

    Raises:
        Unreachable: none can, within `connect_timeout_s` each; with every reason.
        ConnectError: the settings can never work.
    """
    reasons = []
    for url in address.urls:
        try:
            return await dial(url, address, name=name, hooks=hooks or Hooks())
        except Unreachable as exc:
            reasons.append(f"{without_secret(url)}: {exc}")
    raise Unreachable("; ".join(reasons))


class NatsLink:
    """One connection to NATS at a time, for ever, until `stop`.

    Owns its task: `start` begins it, `stop` ends it, `on_failure` hears if it fails.
    """

    def __init__(
        self,
        address: NatsAddress,
        *,
        name: str,
        on_up: Callable[[LinkClient], Awaitable[None]],
        on_ready: Callable[[], None],
        on_down: Callable[[], None],
        on_failure: Callable[[BaseException], None],
        rng: random.Random,
        on_denied: Callable[[str], None] = lambda _subject: None,
        renew: Callable[[], NatsAddress] | None = None,
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
            on_denied: hears of each permission the server says we lack, in its words.
            renew: gives the address anew before each attempt. An embedded server that was started
                again has another port and other passwords, and leaves them in a file.
        """
        self._address = address
        self._name = name
        self._on_up = on_up
        self._on_ready = on_ready
        self._on_down = on_down
        self._rng = rng
        self._on_denied = on_denied
        self._renew = renew
        self._client: LinkClient | None = None
        self._up = asyncio.Event()
        self._stopping = False
        self._known_urls: list[str] = list(address.urls)
        self._crew = tasks.Crew(on_failure)
        self._logged: dict[str, str] = {}
        self.refused = False
        """Whether the last attempt met a server that refuses us, or that we do not trust."""
        self.last_error = "not connected yet"
        """What went wrong last; empty if nothing has since it is connected."""

    @property
    def client(self) -> LinkClient | None:
        """The live client, or None while there is no connection."""
        return self._client

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
        # First of all: nats-py can swallow the cancellation, and the task would reconnect.
        self._stopping = True
        await self._crew.close()

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
        while not self._stopping:
            if failures:
                ceiling = min(wait_max_s, wait_s * 2 ** min(failures, 16))
                await asyncio.sleep(self._rng.uniform(0, ceiling))
            connection = await self._connect()
            if connection is None:
                failures += 1
                continue
            lasted_s = await self._use(*connection)
            # A server that ends each connection at once is no better than none.
            failures = 0 if lasted_s > wait_max_s else failures + 1

    async def _use(self, client: LinkClient, lost: asyncio.Event) -> float:
        """The life of one connection; how long it lasted, in seconds."""
        loop = asyncio.get_running_loop()
        up_since = loop.time()
        self._client = client
        self.last_error = ""
        self._logged.clear()
        self._up.set()
        _log.info("nats_connected", server=str(client.connected_server_version))
        try:
            self._on_ready()
            if not self._stopping:
                await lost.wait()
            return loop.time() - up_since
        finally:
            self._up.clear()
            self._client = None
            if not self._stopping:
                self._remember_cluster(client)
                self.last_error = self.last_error or "connection lost"
                _log.warning("nats_connection_lost", error=self.last_error)
                self._on_down()
            await client.discard()

    async def _connect(self) -> tuple[LinkClient, asyncio.Event] | None:
        """A usable connection and the event of its loss, of the first server that gives one."""
        if self._renew is not None:
            try:
                self._address = self._renew()
            except StreamError as exc:
                self._unusable("", str(exc), refused=False)
                return None
            self._known_urls = list(self._address.urls)
        urls = self._known_urls[:]
        self._rng.shuffle(urls)
        for url in urls:
            lost = asyncio.Event()
            hooks = Hooks(closed=lost.set, denied=self._on_denied, failed=self._note)
            try:
                client = await dial(url, self._address, name=self._name, hooks=hooks)
            except Unreachable as exc:
                self._unusable(url, str(exc), refused=exc.refused)
                continue
            usable = False
            try:
                await self._on_up(client)
                await client.flush(timeout=_FLUSH_S)
                usable = client.is_connected
            except (OSError, nats.errors.Error, TimeoutError) as exc:
                self._unusable(url, describe(exc), refused=False)
            finally:
                if not usable:
                    await client.discard()
            if usable:
                return client, lost
        return None

    def _note(self, reason: str) -> None:
        """Something went wrong on a connection. Said once a connection; it may come in masses."""
        if self._client is not None and not self.last_error:
            _log.warning("nats_error", error=reason)
        self.last_error = reason

    def _unusable(self, url: str, reason: str, *, refused: bool) -> None:
        """Say why there is no connection: once, until the reason changes."""
        self.last_error = reason
        self.refused = refused
        if reason != self._logged.get(url):
            self._logged[url] = reason
            _log.warning("nats_unreachable", url=without_secret(url), error=reason)

    def _remember_cluster(self, client: Client) -> None:
        """Servers the cluster told us about are worth trying when the configured ones are gone."""
        for server in client.discovered_servers:
            url = server.geturl()
            if url not in self._known_urls:
                self._known_urls.append(url)


def describe(error: BaseException) -> str:
    """An exception in one line."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def without_secret(url: str) -> str:
    """A NATS URL as a log may show it."""
    scheme, _, rest = url.rpartition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if scheme else rest.rpartition("@")[2]
