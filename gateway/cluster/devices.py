"""Which node holds a device, so that a device's newest connection wins, on whatever node it is.

Each session has a fence: fleet time at its hello, in microseconds. Sessions are registered in
batches, after they were welcomed, so no device waits for Redis. What was lost with the link is made
up for when the link comes back: all sessions are registered again.
"""

import asyncio
import re
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from gateway.cluster.errors import RedisUnavailable
from gateway.cluster.link import RedisLink

_log = structlog.get_logger(__name__)

_BATCH_MAX: Final = 500
_FENCE_AHEAD: Final = 5_000_000
"""A fence that is more microseconds ahead of fleet time comes from a clock that was wrong."""
_GATHER_S: Final = 0.02

_FENCE: Final = re.compile(r"[0-9]{1,20}")

DeviceKey = tuple[str, str]
Fenced = tuple[DeviceKey, int]


class DeviceRegistry:
    """Tells Redis about the sessions of this node, and this node about newer ones elsewhere."""

    def __init__(
        self,
        link: RedisLink,
        *,
        node: str,
        alive_key: str,
        clock: Callable[[], float],
        present: Callable[[], Iterable[Fenced]],
        on_newer: Callable[[DeviceKey, int], None],
    ) -> None:
        """
        Args:
            link: to Redis.
            node: name of this process.
            alive_key: the key of the living nodes: a node that is gone holds no device.
            clock: fleet time, seconds.
            present: every session of this node with its fence.
            on_newer: called when a device has a connection with a higher fence elsewhere.
        """
        self._link = link
        self._node = node
        self._keys = [link.key("devices"), alive_key]
        self._clock = clock
        self._present = present
        self._on_newer = on_newer
        self._arrived: dict[DeviceKey, int] = {}
        self._departed: dict[DeviceKey, int] = {}
        self._changed = asyncio.Event()

    @property
    def key(self) -> str:
        """The key of the table that says which node holds a device."""
        return self._keys[0]

    @property
    def channel(self) -> str:
        """The channel on which this node learns of takeovers."""
        return self._link.key(f"node:{self._node}")

    def arrived(self, key: DeviceKey, fence: int) -> None:
        """A session was established."""
        self._departed.pop(key, None)
        self._arrived[key] = fence
        self._changed.set()

    def departed(self, key: DeviceKey, fence: int) -> None:
        """A session ended."""
        if self._arrived.get(key) == fence:
            del self._arrived[key]
        self._departed[key] = fence
        self._changed.set()

    def on_message(self, text: str) -> None:
        """A message on our channel: `takeover <tenant>/<device> <fence>`."""
        match text.split(" "):
            case ["takeover", name, fence] if "/" in name and _FENCE.fullmatch(fence):
                tenant, _, device = name.partition("/")
                self._on_newer((tenant, device), int(fence))
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
                continue
            try:
                await self._flush()
            except RedisUnavailable:
                continue  # all sessions are registered when it comes back

    async def _flush(self) -> None:
        while self._arrived:
            await self._register(_take(self._arrived))
        while self._departed:
            batch = _take(self._departed)
            arguments = [part for key, fence in batch for part in (_name(key), fence)]
            await self._link.script("unregister", self._keys[:1], [self._node, *arguments])

    async def _register(self, batch: list[Fenced]) -> None:
        arguments = [part for key, fence in batch for part in (_name(key), fence)]
        fence_max = int(self._clock() * 1_000_000) + _FENCE_AHEAD
        stale = await self._link.script(
            "register",
            self._keys,
            [self._link.key("node:"), self._node, fence_max, *arguments],
        )
        for name, fence in zip(stale[::2], stale[1::2], strict=True):
            tenant, _, device = name.partition("/")
            self._on_newer((tenant, device), int(fence))

    async def register_all(self) -> None:
        """Register every session again, because Redis has missed changes.

        Raises:
            RedisUnavailable: Redis is down, or went down.
        """
        present = dict(self._present())
        while present:
            await self._register(_take(present))


def _take(pending: dict[DeviceKey, int]) -> list[Fenced]:
    batch: list[Fenced] = []
    while pending and len(batch) < _BATCH_MAX:
        batch.append(pending.popitem())
    return batch


def _name(key: DeviceKey) -> str:
    return f"{key[0]}/{key[1]}"
