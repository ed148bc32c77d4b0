"""The nodes of a fleet: which of them are alive, the R that they share, and the time."""

import asyncio
import json
import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from gateway.admission.clock import TOLERANCE_S, FleetClock
from gateway.beats import Wake
from gateway.cluster.errors import RedisUnavailable
from gateway.cluster.link import RedisLink
from gateway.cluster.muster import Muster

_log = structlog.get_logger(__name__)

_INCOMPLETE_BEAT: Final = 0.25
"""Fraction of the heartbeat interval that is used while nodes are missing."""
_PATIENCE_BEATS: Final = 2.5
"""A dispute about the time lasts so many heartbeats: all other nodes have sent one by then."""


@dataclass(frozen=True, slots=True)
class FleetView:
    """What a heartbeat brought."""

    rate_per_s: float
    nodes: int
    complete: bool
    """Whether all nodes are back that were there before Redis was away."""
    together: bool
    """Whether this node may use the fleet's calendar: all nodes are back and agree on the time."""
    accepts: dict[str, frozenset[str]]
    """The ids of the ticket secrets that each other node accepts."""


@dataclass(frozen=True, slots=True)
class NodeHooks:
    """Callbacks of the heartbeat. They run in the event loop and must return at once."""

    proposal: Callable[[], float]
    """The R that the health of this node allows."""
    accepted: Callable[[], Sequence[str]]
    """The ids of the ticket secrets that this node accepts."""
    on_fleet: Callable[[FleetView], None]
    on_forgotten: Callable[[], None]
    """Redis has lost its memory."""
    on_behind: Callable[[], None]
    """Other nodes took this node for dead, and may have ignored what it said."""
    on_step: Callable[[float], None]
    """Fleet time has stepped by so many seconds."""


class NodeRegistry:
    """Tells Redis that this node is alive, and learns how many nodes are.

    R of the fleet is the mean of what its nodes propose, so one sick node lowers R by no more than
    its own share.
    """

    def __init__(
        self,
        link: RedisLink,
        *,
        node: str,
        heartbeat_s: float,
        timeout_s: float,
        assumed_nodes: int,
        marked_keys: Sequence[str],
        clock: FleetClock,
        hooks: NodeHooks,
        rng: random.Random,
    ) -> None:
        """
        Args:
            link: to Redis.
            node: name of this process.
            heartbeat_s: seconds between heartbeats, which each process sends at another moment.
            timeout_s: a node that is silent for this long is gone.
            assumed_nodes: how many nodes share R until Redis has answered.
            marked_keys: hashes; if one is missing, Redis has lost its memory.
            clock: fleet time; the time of Redis corrects it.
            hooks: callbacks.
            rng: source of jitter.
        """
        self._link = link
        self._node = node
        self._heartbeat_s = heartbeat_s
        self._clock = clock
        self._hooks = hooks
        self._rng = rng
        names = ("nodes", "rates", "fleet", "views", "accepts")
        self._keys = [*map(link.key, names), *marked_keys]
        self._muster = Muster(timeout_s, nodes=assumed_nodes)
        self._beating = asyncio.Lock()
        self._soon = Wake()
        self.epoch = ""
        """The name of what Redis remembers: another epoch means that Redis forgot."""
        self.redis_offset_s = 0.0
        """How far fleet time is ahead of the clock of Redis."""
        link.on_up.append(self.beat)
        link.on_down.append(self._muster.lost)

    @property
    def nodes(self) -> int:
        """How many nodes share R."""
        return self._muster.nodes

    @property
    def fleet_key(self) -> str:
        """The key of the epoch and of the shift of Redis' clock."""
        return self._keys[2]

    @property
    def alive_key(self) -> str:
        """The key of the living nodes."""
        return self._keys[0]

    def beat_soon(self) -> None:
        """Send a heartbeat soon: something is in doubt, and a heartbeat decides it."""
        self._soon.set()

    async def run(self) -> None:
        """Send heartbeats for ever, while Redis is there. The link sends one when it comes back."""
        while True:
            settled = self._muster.complete and not self._clock.disputed
            if await self._soon.beat(self._heartbeat_s * (1.0 if settled else _INCOMPLETE_BEAT)):
                # One heartbeat for each doubt, with a bound on how often.
                await asyncio.sleep(self._heartbeat_s * _INCOMPLETE_BEAT * self._rng.random())
            self._soon.clear()
            if self._link.up:
                try:
                    await self.beat()
                except RedisUnavailable:
                    continue  # the link has run its hooks

    async def beat(self) -> None:
        """
        Raises:
            RedisUnavailable: Redis is down, or went down.
        """
        async with self._beating:  # the link's hook may send a heartbeat at the same time
            await self._beat()

    async def _beat(self) -> None:
        loop, clock, hooks = asyncio.get_running_loop(), self._clock, self._hooks
        began = loop.time()
        reply = await self._link.script(
            "heartbeat",
            self._keys,
            [
                self._node,
                self._muster.timeout_s,
                hooks.proposal(),
                f"{clock():.6f}" if clock.synced else "",
                TOLERANCE_S,
                secrets.token_hex(8),
                ",".join(hooks.accepted()),
            ],
        )
        half_trip_s = (loop.time() - began) / 2
        now, nodes, rate, epoch, shift, new, accepts = json.loads(reply)
        if not self._link.up:  # it was lost while the answer was on its way
            raise RedisUnavailable("unreachable", "went away during a beat")
        self._hear_time(float(now) + half_trip_s, half_trip_s)
        self.redis_offset_s = float(shift)
        if epoch != self.epoch:
            self._hear_epoch(epoch)
        elif new == "1":
            _log.warning("taken_for_dead", hint="this node was silent for longer than node_timeout")
            hooks.on_behind()
        before = self.nodes
        self._muster.heard(int(nodes), loop.time())
        if self.nodes != before:
            _log.info("fleet_changed", nodes=self.nodes, before=before, rate_per_s=float(rate))
        others = {
            name: frozenset(ids.split(","))
            for name, ids in zip(accepts[::2], accepts[1::2], strict=True)
            if name != self._node
        }
        complete = self._muster.complete
        together = complete and not clock.disputed
        hooks.on_fleet(FleetView(float(rate), self.nodes, complete, together, others))

    def _hear_time(self, reference: float, uncertainty_s: float) -> None:
        clock = self._clock
        first, disputed = not clock.synced, clock.disputed
        step_s = clock.steer(
            reference,
            uncertainty_s=uncertainty_s,
            patience_s=self._heartbeat_s * _PATIENCE_BEATS,
        )
        if clock.disputed and not disputed:
            _log.warning("clock_disputed", seconds=round(reference - clock(), 1))
        if step_s:
            if abs(step_s) > TOLERANCE_S:
                _log.warning("clock_stepped", seconds=round(step_s, 3), first=first)
            self._hooks.on_step(step_s)

    def _hear_epoch(self, epoch: str) -> None:
        known, self.epoch = self.epoch, epoch
        if known:
            _log.warning("redis_forgot", hint="every node gives back what it knows")
            self._muster.lost()
            self._hooks.on_forgotten()
        else:
            self._hooks.on_behind()  # it may have worked for long before it met the others

    def alone(self) -> None:
        """Redis was away at the start: this node uses its share only, until all nodes are back."""
        self._muster.lost()

    async def leave(self) -> None:
        """This node stops: the others get its share at once.

        Raises:
            RedisUnavailable: Redis is down, or went down.
        """
        alive, rates, _fleet, views, accepts = self._keys[:5]

        async def forget(client: object) -> None:
            await client.zrem(alive, self._node)  # type: ignore[attr-defined]
            for key in (rates, views, accepts):
                await client.hdel(key, self._node)  # type: ignore[attr-defined]

        await self._link.call(forget)
