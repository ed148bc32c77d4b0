"""The connection to Redis: kept up with jittered reconnects, and its loss told once."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from typing import Any, Final

import redis.asyncio
import structlog
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from gateway.cluster.errors import RedisUnavailable

_log = structlog.get_logger(__name__)

_TIMEOUT_S: Final = 1.0
_WAIT_S: Final = 0.1
_WAIT_MAX_S: Final = 2.0
_SCRIPTS: Final = ("lease", "heartbeat", "register", "unregister", "revoke")

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
        self._redis = redis.asyncio.Redis.from_url(
            url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, decode_responses=True
        )
        source = files("gateway.cluster")
        self._scripts = {
            name: self._redis.register_script(source.joinpath(f"{name}.lua").read_text())
            for name in _SCRIPTS
        }
        self._prefix = prefix
        self._rng = rng
        self._lost = asyncio.Event()
        self._ready = asyncio.Event()
        self.up = False
        self.on_up: list[Callable[[], Awaitable[None]]] = []
        """Run in order once Redis answers, before the link counts as up."""
        self.on_down: list[Callable[[], None]] = []

    def key(self, name: str) -> str:
        return f"{self._prefix}:{name}"

    async def run(self) -> None:
        """Keep it up, for ever."""
        failures = 0
        while True:
            try:
                await self._redis.ping()
                self._lost.clear()
                self.up = True
                for hook in self.on_up:
                    await hook()
            except (RedisError, OSError, RedisUnavailable) as exc:
                if self.up or self._lost.is_set():
                    self._tell_down()
                self.up = False
                failures += 1
                if failures == 1 or failures % 20 == 0:
                    _log.warning("redis_unreachable", error=type(exc).__name__, failures=failures)
                ceiling = min(_WAIT_MAX_S, _WAIT_S * 2 ** min(failures, 10))
                await asyncio.sleep(self._rng.uniform(0, ceiling))
                continue
            failures = 0
            _log.info("redis_connected")
            self._ready.set()
            await self._lost.wait()
            self._ready.clear()
            _log.warning("redis_lost")
            self._tell_down()

    async def wait_up(self) -> None:
        """Wait until Redis answers and everything has been told so."""
        await self._ready.wait()

    async def script(self, name: str, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Run one of the room's scripts.

        Raises:
            RedisUnavailable: Redis is down, or went down.
        """
        script = self._scripts[name]
        return await self.call(lambda _redis: script(keys=list(keys), args=list(arguments)))

    async def call(self, work: Callable[["redis.asyncio.Redis"], Awaitable[Any]]) -> Any:
        """Do `work` with the client.

        Raises:
            RedisUnavailable: Redis is down, or went down.
        """
        if not self.up:
            raise RedisUnavailable("Redis is not connected")
        try:
            return await work(self._redis)
        except (RedisError, OSError) as exc:
            self._fail()
            raise RedisUnavailable(f"Redis: {type(exc).__name__}") from exc

    async def listen(
        self,
        channels: Sequence[str],
        on_message: Callable[[str, str], None],
        on_listening: Callable[[], Awaitable[None]],
    ) -> None:
        """Hear `channels` for ever, over every loss of the connection.

        Args:
            channels: their names.
            on_message: takes channel and text.
            on_listening: run each time once all of them are heard: what was said before was missed.
        """
        while True:
            pubsub: PubSub = self._redis.pubsub()
            try:
                await pubsub.subscribe(*channels)
                unheard = set(channels)
                while True:
                    message = await pubsub.get_message(timeout=None)
                    if message is None:
                        continue
                    if message["type"] == "message":
                        on_message(message["channel"], message["data"])
                    elif unheard:
                        unheard.discard(message["channel"])
                        if not unheard:
                            await self.wait_up()
                            await on_listening()
            except (RedisError, OSError, RedisUnavailable):
                self._fail()
                await asyncio.sleep(self._rng.uniform(0, _WAIT_MAX_S))
            finally:
                await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        self.up = False
        await self._redis.aclose()

    def _tell_down(self) -> None:
        for told in self.on_down:
            told()

    def _fail(self) -> None:
        if self.up:
            self.up = False
            self._lost.set()
