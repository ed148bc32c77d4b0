"""The connection to Redis. It reconnects with jitter, and reports once why Redis cannot be used."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import structlog

from gateway.cluster.errors import RedisRefused, RedisUnavailable
from gateway.jitter import full_jitter_s

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.client import PubSub

_log = structlog.get_logger(__name__)

_TIMEOUT_S: Final = 1.0
_WAIT_S: Final = 0.1
_WAIT_MAX_S: Final = 2.0
_REFUSED_WAIT_S: Final = 3.0
"""After a mistake in the settings: asking more often does not help."""
_SAY_AGAIN_S: Final = 60.0
_LISTEN_PING_S: Final = 1.5
"""A subscription is pinged so often: a broken one looks like one without messages."""
_SCRIPTS: Final = (
    "claim", "claim_done", "heartbeat", "lease", "register", "revoke", "rights", "secrets",
)  # fmt: skip

Argument = str | int | float


class RedisLink:
    """One Redis, up or down. Calls fail fast while it is down."""

    def __init__(self, url: str, *, prefix: str, rng: random.Random) -> None:
        """
        Args:
            url: `redis://`, `rediss://` or `unix://`; may hold a password and is never logged.
            prefix: of every key and channel.
            rng: source of jitter.
        """
        from gateway.cluster import driver  # noqa: PLC0415  # the module says why

        self._driver = driver
        self._redis = driver.client(url, timeout_s=_TIMEOUT_S)
        source = files("gateway.cluster")
        self._scripts = {
            name: self._redis.register_script(source.joinpath(f"{name}.lua").read_text())
            for name in _SCRIPTS
        }
        self._prefix = prefix
        self._rng = rng
        self._lost = asyncio.Event()
        self._ready = asyncio.Event()
        self._complaints = {
            "calls": _Complaint("redis_unavailable"),
            "channels": _Complaint("redis_channels_refused"),
        }
        self.up = False
        self.on_up: list[Callable[[], Awaitable[None]]] = []
        """Run in this order when Redis answers, before the link counts as up."""
        self.on_down: list[Callable[[], None]] = []

    def key(self, name: str) -> str:
        return f"{self._prefix}:{name}"

    @property
    def trouble(self) -> RedisUnavailable | None:
        """Why Redis cannot be used now, or None."""
        found = [complaint.about for complaint in self._complaints.values() if complaint.about]
        return found[0] if found else None

    async def open(self) -> None:
        """Connect, try every right that this room needs, and run the hooks.

        Raises:
            RedisRefused: a password, a right or a certificate is wrong.
            RedisUnavailable: Redis does not answer, or cannot do what it is asked now.
        """
        try:
            async with self._driver.translated():
                # Connections of before may be half open.
                await self._redis.connection_pool.disconnect(inuse_connections=False)
                await self._redis.ping()
                await self._try_rights()
            self._lost.clear()
            self.up = True
            for hook in self.on_up:
                await hook()
        except RedisUnavailable as exc:
            if self.up or self._lost.is_set():
                self._tell_down()
            self.up = False
            self._complaints["calls"].say(exc)
            raise
        self._complaints["calls"].clear()
        _log.info("redis_connected")
        self._ready.set()

    async def run(self) -> None:
        """Connect again whenever the connection is lost, for ever."""
        failures = 0
        while True:
            if not self._ready.is_set():
                try:
                    await self.open()
                except RedisUnavailable as exc:
                    failures += 1
                    first_s, max_s = _WAIT_S, _WAIT_MAX_S
                    if isinstance(exc, RedisRefused):
                        first_s = max_s = _REFUSED_WAIT_S
                    wait_s = full_jitter_s(self._rng, failures, first_s=first_s, max_s=max_s)
                    await asyncio.sleep(wait_s)
                    continue
            failures = 0
            await self._lost.wait()
            self._ready.clear()
            _log.warning("redis_lost")
            self._tell_down()

    async def wait_up(self) -> None:
        """Wait until Redis answers and all hooks have run."""
        await self._ready.wait()

    async def script(self, name: str, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Run one of the room's scripts.

        Raises:
            RedisUnavailable: Redis is down, or went down.
        """
        script = self._scripts[name]
        return await self.call(lambda _redis: script(keys=list(keys), args=list(arguments)))

    async def call(self, work: Callable[["Redis"], Awaitable[Any]]) -> Any:
        """Do `work` with the client.

        Raises:
            RedisUnavailable: Redis is down, or went down.
        """
        if not self.up:
            raise RedisUnavailable("unreachable", "not connected")
        try:
            async with self._driver.translated():
                return await work(self._redis)
        except RedisUnavailable as exc:
            self._fail(exc)
            raise

    async def listen(
        self,
        channels: Sequence[str],
        on_message: Callable[[str, str], None],
        on_listening: Callable[[], None],
    ) -> None:
        """Listen to `channels` for ever; subscribe again after each loss of the connection.

        Args:
            channels: their names.
            on_message: takes channel and text.
            on_listening: called after each subscription to all of them. What was published before
                was missed.
        """
        while True:
            pubsub: PubSub = self._redis.pubsub()
            try:
                async with self._driver.translated():
                    await self._hear(pubsub, channels, on_message, on_listening)
            except RedisRefused as exc:
                self._complaints["channels"].say(exc)
                await asyncio.sleep(self._rng.uniform(0, _REFUSED_WAIT_S))
            except RedisUnavailable:
                # Calls notice that Redis is away. `on_listening` makes up for missed messages.
                await asyncio.sleep(self._rng.uniform(0, _WAIT_MAX_S))
            finally:
                await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def _hear(
        self,
        pubsub: "PubSub",
        channels: Sequence[str],
        on_message: Callable[[str, str], None],
        on_listening: Callable[[], None],
    ) -> None:
        await pubsub.subscribe(*channels)
        unheard = set(channels)
        asked = False
        while True:
            message = await pubsub.get_message(timeout=_LISTEN_PING_S)
            if message is None:
                if asked:
                    raise RedisUnavailable("no_answer", "the subscription is silent")
                await pubsub.ping()
                asked = True
                continue
            asked = False
            if message["type"] == "message":
                on_message(message["channel"], message["data"])
            elif message["type"] == "subscribe" and unheard:
                unheard.discard(message["channel"])
                if not unheard:
                    self._complaints["channels"].clear()
                    on_listening()

    async def _try_rights(self) -> None:
        name = self.key("rights")
        script = self._scripts["rights"]
        refused: list[str] = await script(keys=[name, f"{name}-members"], args=[name])
        if refused:
            raise self._driver.refusal(refused)
        await self._redis.hgetall(name)
        await self._redis.hdel(name, "a")
        await self._redis.zrem(f"{name}-members", "a")
        pubsub: PubSub = self._redis.pubsub()
        try:
            await pubsub.subscribe(name)
            await pubsub.get_message(timeout=_TIMEOUT_S)
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        self.up = False
        await self._redis.aclose()

    def _tell_down(self) -> None:
        for told in self.on_down:
            told()

    def _fail(self, exc: RedisUnavailable) -> None:
        if self.up:
            self.up = False
            self._complaints["calls"].say(exc)
            self._lost.set()


class _Complaint:
    """Logs why something does not work: at once, when the reason changes, and once a minute."""

    def __init__(self, event: str) -> None:
        self._event = event
        self._said_at = 0.0
        self.about: RedisUnavailable | None = None

    def say(self, exc: RedisUnavailable) -> None:
        now = asyncio.get_running_loop().time()
        news = self.about is None or self.about.reason != exc.reason
        self.about = exc
        if news or now - self._said_at >= _SAY_AGAIN_S:
            self._said_at = now
            level = logging.ERROR if isinstance(exc, RedisRefused) else logging.WARNING
            _log.log(level, self._event, reason=exc.reason, detail=exc.detail)

    def clear(self) -> None:
        self.about = None
