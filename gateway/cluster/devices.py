"""Which node holds a device, so that a device's newest connection wins, on whatever node it is.

Each session has a fence: fleet time at its hello, in microseconds. Sessions are registered in
batches, after they were welcomed, so no device waits for Redis. What was lost with the link is made
up for when the link comes back: all sessions are registered again. `register.lua` decides which of
two sessions is the newer one; it may raise the fence of a session.
"""

import asyncio
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import structlog

from gateway.admission.clock import TOLERANCE_S
from gateway.cluster.admission_news import AdmissionNews
from gateway.cluster.errors import RedisUnavailable
from gateway.cluster.link import RedisLink

_log = structlog.get_logger(__name__)

_BATCH_MAX: Final = 500
_MICROSECONDS: Final = 1_000_000
_FENCE_AHEAD: Final = 5 * _MICROSECONDS
"""A fence that is further ahead of fleet time comes from a clock that was wrong."""
_GATHER_S: Final = 0.1
"""Changes of so long share a call. The older session of a device lasts as much longer when the
newer one begins on another node."""

_FENCE: Final = re.compile(r"[0-9]{1,20}")

DeviceKey = tuple[str, str]
Fenced = tuple[DeviceKey, int]


class Sessions(Protocol):
    """The sessions of this node."""

    def present(self) -> Iterable[Fenced]:
        """Every session with its fence."""

    def newer_elsewhere(self, key: DeviceKey, fence: int) -> None:
        """The device has a session with this fence on another node, which is newer."""

    def raised(self, key: DeviceKey, given: int, fence: int) -> None:
        """The session of the fence `given` has the fence `fence` from now on."""


class DeviceRegistry:
    """Tells Redis about the sessions of this node, and this node about newer ones elsewhere."""

    def __init__(
        self,
        link: RedisLink,
        *,
        node: str,
        alive_key: str,
        fleet_key: str,
        fence_source: str,
        clock: Callable[[], float],
        sessions: Sessions,
        news: AdmissionNews,
    ) -> None:
        """
        Args:
            link: to Redis.
            node: name of this process.
            alive_key: the key of the living nodes: a node that is gone holds no device.
            fleet_key: the key that says how far fleet time is ahead of the clock of Redis.
            fence_source: where the fences of this node come from. Those of one source are never in
                the wrong order, also if several nodes share it.
            clock: fleet time, seconds.
            sessions: of this node.
            news: tells the other nodes which devices were admitted here.
        """
        self._link = link
        self._node = node
        self._keys = [link.key("devices"), alive_key, fleet_key]
        self._fence_source = fence_source
        self._clock = clock
        self._sessions = sessions
        self.news = news
        self._arrived: dict[DeviceKey, int] = {}
        self._departed: dict[DeviceKey, int] = {}
        self._followed: dict[DeviceKey, int] = {}
        """Sessions that left and that one of `_arrived` follows. Redis hears of that one only."""
        self._changed = asyncio.Event()

    @property
    def key(self) -> str:
        """The key of the table that says which node holds a device."""
        return self._keys[0]

    @property
    def channel(self) -> str:
        """The channel on which this node learns of takeovers."""
        return self._link.key(f"node:{self._node}")

    def arrived(self, key: DeviceKey, fence: int, holder: bytes) -> None:
        """A session was established; `holder` is the hash of its device (`device_hash`)."""
        before = self._departed.pop(key, None)
        if before is not None:
            self._followed[key] = before
        self._arrived[key] = fence
        self.news.add(holder)
        self._changed.set()

    def departed(self, key: DeviceKey, fence: int) -> None:
        """A session ended."""
        if self._arrived.get(key) == fence:  # Redis has not heard of it, and need not
            del self._arrived[key]
            before = self._followed.pop(key, None)
            if before is None:
                return
            fence = before
        self._departed[key] = fence
        self._changed.set()

    def on_message(self, text: str) -> None:
        """A message on our channel.

        `takeover <tenant>/<device> <fence>`: another node has a newer session, of that fence.
        `raised <tenant>/<device> <fence> <fence>`: the session of that fence has another one now.
        """
        match text.split(" "):
            case ["takeover", name, fence] if "/" in name and _FENCE.fullmatch(fence):
                self._sessions.newer_elsewhere(_key(name), int(fence))
            case ["raised", name, given, fence] if (
                "/" in name and _FENCE.fullmatch(given) and _FENCE.fullmatch(fence)
            ):
                self._raised(_key(name), int(given), int(fence))
            case _:
                _log.error("cluster_message_malformed", channel=self.channel)

    async def run(self) -> None:
        """Tell Redis of changes, for ever. Changes are dropped while Redis is away."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(_GATHER_S)
            self._changed.clear()
            if not self._link.up:
                self._arrived.clear()
                self._departed.clear()
                self._followed.clear()
                continue
            try:
                await self._flush()
            except RedisUnavailable:
                continue  # all sessions are registered when it comes back

    async def _flush(self) -> None:
        # What changes during a call waits for the next gathering: else each call would be followed
        # by one for the few devices that came meanwhile.
        for _ in range(math.ceil((len(self._arrived) + len(self._departed)) / _BATCH_MAX)):
            arrived = _take(self._arrived, _BATCH_MAX)
            await self._register(arrived, _take(self._departed, _BATCH_MAX - len(arrived)))
        if self._followed:
            self._followed = {k: each for k, each in self._followed.items() if k in self._arrived}

    async def _register(self, arrived: list[Fenced], departed: list[Fenced]) -> None:
        stale, raised = await self._link.script(
            "register",
            self._keys,
            [
                self._link.key("node:"), self._node, self._fence_source,
                int(self._clock() * _MICROSECONDS), _FENCE_AHEAD, int(TOLERANCE_S * _MICROSECONDS),
                _listed(arrived), _listed(departed),
            ],
        )  # fmt: skip
        for name, given, fence in zip(raised[::3], raised[1::3], raised[2::3], strict=True):
            self._raised(_key(name), int(given), int(fence))
        for name, fence in zip(stale[::2], stale[1::2], strict=True):
            self._sessions.newer_elsewhere(_key(name), int(fence))

    def _raised(self, key: DeviceKey, given: int, fence: int) -> None:
        for left in (self._departed, self._followed):  # meanwhile
            if left.get(key) == given:
                left[key] = fence
        self._sessions.raised(key, given, fence)

    async def register_all(self) -> None:
        """Register every session again, because Redis has missed changes.

        Raises:
            RedisUnavailable: Redis is down, or went down.
        """
        present = dict(self._sessions.present())
        while present:
            await self._register(_take(present, _BATCH_MAX), [])


def _take(pending: dict[DeviceKey, int], most: int) -> list[Fenced]:
    batch: list[Fenced] = []
    while pending and len(batch) < most:
        batch.append(pending.popitem())
    return batch


def _key(name: str) -> DeviceKey:
    tenant, _, device = name.partition("/")
    return tenant, device


def _listed(batch: Sequence[Fenced]) -> str:
    return " ".join([f"{tenant}/{device} {fence}" for (tenant, device), fence in batch])
