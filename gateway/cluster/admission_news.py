"""Tells the other nodes which devices were admitted here, so that they forget what they promised.

A node remembers the slot that it promised to a device (`admission/promises.py`), and a device may
use that slot on any node. If the node that admitted it then dies, the device comes back to a node
that still remembers the slot. Without this news that node would honour the slot a second time: so
many devices would be admitted over R as the dead node had admitted lately.

The news is a hint. What is lost with Redis, or with a node that dies within the second, costs that
many admissions over R.
"""

import asyncio
import binascii
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from gateway.cluster.errors import RedisUnavailable
from gateway.cluster.link import RedisLink

_log = structlog.get_logger(__name__)

_GATHER_S: Final = 1.0
"""Admissions of so long share a message. Every node reads it, so more messages would cost more than
the admissions; a device that has lost its connection seldom comes back sooner."""
_HOLDERS_MAX: Final = 100_000
"""In one message: what the highest R admits in a second."""
_HASH_BYTES: Final = 8


class AdmissionNews:
    """The admissions of this node for the others, and those of the others for this node."""

    def __init__(
        self, link: RedisLink, *, node: str, on_admitted: Callable[[Sequence[bytes]], None]
    ) -> None:
        """
        Args:
            link: to Redis.
            node: name of this process.
            on_admitted: called with the hashes of devices that another node has admitted.
        """
        self._link = link
        self._node = node
        self._on_admitted = on_admitted
        self._holders: list[bytes] = []
        self._added = asyncio.Event()

    @property
    def channel(self) -> str:
        """The channel on which nodes tell each other."""
        return self._link.key("admitted")

    def add(self, holder: bytes) -> None:
        """A device was admitted here, which is named by its hash."""
        if not self._holders:
            self._added.set()
        if len(self._holders) < _HOLDERS_MAX:
            self._holders.append(holder)

    def on_message(self, text: str) -> None:
        """A message on the channel: `<node> <hashes in base64>`."""
        node, _, joined = text.partition(" ")
        if node == self._node:
            return
        try:
            hashes = binascii.a2b_base64(joined.encode(), strict_mode=True)
        except (binascii.Error, UnicodeEncodeError):
            hashes = b""
        if not hashes or len(hashes) % _HASH_BYTES:
            _log.error("cluster_message_malformed", channel=self.channel)
            return
        starts = range(0, len(hashes), _HASH_BYTES)
        self._on_admitted([hashes[start : start + _HASH_BYTES] for start in starts])

    async def run(self) -> None:
        """Tell the other nodes, for ever. What happens while Redis is away is not told."""
        while True:
            await self._added.wait()
            await asyncio.sleep(_GATHER_S)
            self._added.clear()
            holders, self._holders = self._holders, []
            try:
                await self._tell(holders)
            except RedisUnavailable:
                continue  # the link connects again

    async def _tell(self, holders: Sequence[bytes]) -> None:
        text = binascii.b2a_base64(b"".join(holders), newline=False).decode()
        message = f"{self._node} {text}"
        await self._link.call(lambda client: client.publish(self.channel, message))
