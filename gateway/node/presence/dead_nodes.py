"""Puts the devices of nodes offline that are gone: the others do it, and a node for its own past.

- The first thing a node does is to end what its earlier lives (`earlier_lives.py`) left online.
- In a fleet, each node sees which others are alive. One that is missing from the heartbeat was
  silent for `cluster.node_timeout_ms`. One of the others claims the work (`cluster/claims.py`), and
  stores the end of each session that is online there, with the fence of that session: a newer
  session of the device has a higher one.
- Now and then one node looks for devices that are online at a node which nobody knows: the whole
  fleet may have been away at once.

A node may be taken for dead although it lives. When it finds out, it announces its sessions again
(`SessionPresence.announce_again`). Facts that are newer than the silence are left alone: they come
from a node which lives.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import nats.errors
import structlog

from gateway.beats import beat
from gateway.cluster.claims import MINE, TAKEN
from gateway.cluster.errors import RedisUnavailable
from gateway.node.cluster.earlier_lives import EarlierLives
from gateway.node.cluster.membership import Membership
from gateway.node.cluster.roll import Alive
from gateway.node.presence.reading import truth_now
from gateway.process import Work
from gateway.session.presence import NODE_LOST, Fact
from gateway.stream.errors import StreamError
from gateway.stream.presence.writer import PresenceWriter
from gateway.stream.reading.reader import Link

_LOOK_S: Final = 0.5
_RETRY_S: Final = 3.0
_LEASE_S: Final = 30.0
_STORED_WITHIN_S: Final = 25.0
"""Less than the lease: then another node may do the work again."""
_SEARCH_S: Final = 600.0
_SEARCH: Final = "*"
_AGAIN: Final = (RedisUnavailable, StreamError, nats.errors.Error, TimeoutError)


_log = structlog.get_logger(__name__)


class DeadNodes:
    """Ends the presence of devices at nodes that are gone."""

    def __init__(
        self,
        link: Link,
        writer: PresenceWriter,
        membership: Membership,
        lives: EarlierLives,
        *,
        node: str,
        ready: Callable[[], Awaitable[None]],
        on_ended: Callable[[int], None],
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        """
        Args:
            link: to NATS.
            writer: stores facts.
            membership: knows which nodes are alive.
            lives: the earlier lives of this node.
            node: name of this process.
            ready: waits until the streams are there.
            on_ended: counts the sessions that were ended.
            clock: fleet time, seconds.
            rng: source of jitter.
        """
        self._link = link
        self._writer = writer
        self._membership = membership
        self._lives = lives
        self._node = node
        self._ready = ready
        self._on_ended = on_ended
        self._clock = clock
        self._rng = rng
        self._search_at = 0.0
        self._gone: dict[str, float] = {}
        """Nodes that are gone, each with the moment of fleet time at which they were missing."""
        self._known: frozenset[str] = frozenset()

    def work(self) -> Iterable[Work]:
        """As long as the node runs."""
        yield "dead-nodes", self._run()

    async def _run(self) -> None:
        await self._ready()
        past = False
        while True:
            past = past or await self._tried(self._end_own_past())
            await beat(_LOOK_S)
            alive = self._membership.alive
            if alive is None:
                continue
            self.look(alive)
            if self._clock() >= self._search_at:
                await self._tried(self._search(alive))
            if self._gone:
                await self._tried(self._end_gone())

    def look(self, alive: Alive) -> None:
        """Notice which nodes are missing since the last look, and which are back."""
        for name in self._known - alive.names:
            self._gone[name] = alive.at - alive.silence_s / 2
        for name in alive.names & self._gone.keys():
            del self._gone[name]  # it announces its sessions again
        self._known = alive.names

    async def _tried(self, work: Awaitable[None]) -> bool:
        """Whether `work` was done. If NATS or Redis is away, it is tried again after a wait."""
        try:
            await work
        except _AGAIN as exc:
            _log.warning("dead_nodes_wait", error=str(exc) or type(exc).__name__)
            await asyncio.sleep(self._rng.uniform(0.5, 1.0) * _RETRY_S)
            return False
        return True

    async def _end_own_past(self) -> None:
        """This node itself was away: what its earlier lives left online has ended."""
        names = self._lives.names
        if names:
            truth = await truth_now(self._link)
            await self._end(truth.online_at(names))
            self._lives.ended(names)

    async def _search(self, alive: Alive) -> None:
        """Find nodes that nobody misses, because nobody who knew them is there any more."""
        self._search_at = self._clock() + self._rng.uniform(0.8, 1.0) * _SEARCH_S
        claimed = await self._membership.claim({_SEARCH: alive.at}, lease_s=_SEARCH_S)
        if claimed[_SEARCH] != MINE:
            return
        long_ago = alive.at - alive.silence_s
        for fact in await truth_now(self._link):
            if fact.online and fact.node not in alive.names:
                self._gone.setdefault(fact.node, long_ago)
                if fact.time > long_ago:  # too fresh to say; look again soon
                    self._search_at = self._clock() + alive.silence_s

    async def _end_gone(self) -> None:
        """End the sessions of nodes that are gone, unless another node does it."""
        gone = dict(self._gone)
        claimed = await self._membership.claim(gone, lease_s=_LEASE_S)
        mine = frozenset(name for name in gone if claimed[name] == MINE)
        if mine:
            truth = await truth_now(self._link)
            left = [fact for fact in truth.online_at(mine) if fact.time <= gone[fact.node]]
            await self._end(left)
            await self._membership.claim_done(sorted(mine))
        for name in gone:
            if claimed[name] != TAKEN:
                self._gone.pop(name, None)

    async def _end(self, facts: list[Fact]) -> None:
        """Store the end of these sessions.

        Raises:
            TimeoutError: they are not stored in time.
        """
        if not facts:
            return
        nodes = sorted({fact.node for fact in facts})
        _log.warning("presence_of_nodes_ended", nodes=nodes[:10], devices=len(facts))
        now = self._clock()
        for fact in facts:
            self._writer.add(fact.ended(NODE_LOST, now, self._node), prompt=True)
        async with asyncio.timeout(_STORED_WITHIN_S):
            await self._writer.stored_so_far()
        self._on_ended(len(facts))
