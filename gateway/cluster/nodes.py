"""The nodes of a fleet: who lives, how many share R, and what R they agree on."""

import asyncio
import random
from collections.abc import Callable
from typing import Final

import structlog

from gateway.admission.clock import FleetClock
from gateway.cluster.errors import RedisUnavailable
from gateway.cluster.link import RedisLink
from gateway.cluster.muster import Muster

_log = structlog.get_logger(__name__)

_INCOMPLETE_BEAT: Final = 0.25
"""Of a heartbeat: whoever waits for the others wants to hear of them soon."""


class NodeRegistry:
    """Says that this node lives, and hears how many do.

    R of the fleet is the mean of what its nodes propose, so one sick node lowers it by its own
    share and no more.
    """

    def __init__(
        self,
        link: RedisLink,
        *,
        node: str,
        heartbeat_s: float,
        timeout_s: float,
        clock: FleetClock,
        proposal: Callable[[], float],
        on_fleet: Callable[[float, int, bool], None],
        rng: random.Random,
    ) -> None:
        """
        Args:
            link: to Redis.
            node: name of this process.
            heartbeat_s: seconds between beats (with jitter).
            timeout_s: a node silent for this long is gone.
            clock: the fleet's clock; steered by Redis' time.
            proposal: the R this node could live with.
            on_fleet: called with R, the number of nodes, and whether all have found Redis again.
            rng: source of jitter.
        """
        self._link = link
        self._node = node
        self._heartbeat_s = heartbeat_s
        self._timeout_s = timeout_s
        self._clock = clock
        self._proposal = proposal
        self._on_fleet = on_fleet
        self._rng = rng
        self._keys = [link.key("nodes"), link.key("rates")]
        self._muster = Muster(timeout_s)
        link.on_up.append(self.beat)
        link.on_down.append(self._muster.lost)

    @property
    def nodes(self) -> int:
        """How many share R."""
        return self._muster.nodes

    async def run(self) -> None:
        """Beat for ever; while Redis is away the link says so, and its return is a beat."""
        while True:
            beat_s = self._heartbeat_s * (1.0 if self._muster.complete else _INCOMPLETE_BEAT)
            await asyncio.sleep(beat_s * self._rng.uniform(0.8, 1.0))
            if self._link.up:
                try:
                    await self.beat()
                except RedisUnavailable:
                    continue  # the link has told everybody

    async def beat(self) -> None:
        """
        Raises:
            RedisUnavailable: Redis is down, or went down.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        now, nodes, rate = await self._link.script(
            "heartbeat", self._keys, [self._node, self._timeout_s, self._proposal()]
        )
        # Its clock was read about half a round trip ago.
        self._clock.steer(float(now) + (loop.time() - began) / 2)
        if not self._link.up:  # this was its last word
            raise RedisUnavailable("Redis went down")
        before = self.nodes
        self._muster.heard(int(nodes), loop.time())
        if self.nodes != before:
            _log.info("fleet_changed", nodes=self.nodes, before=before, rate_per_s=float(rate))
        self._on_fleet(float(rate), self.nodes, self._muster.complete)

    async def leave(self) -> None:
        """This node stops: its share is the others' at once.

        Raises:
            RedisUnavailable: Redis is down, or went down.
        """
        alive, rates = self._keys

        async def forget(client: object) -> None:
            await client.zrem(alive, self._node)  # type: ignore[attr-defined]
            await client.hdel(rates, self._node)  # type: ignore[attr-defined]

        await self._link.call(forget)
