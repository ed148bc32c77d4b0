"""Composition: this node as a member of a fleet over Redis, or on its own.

Both forms offer the same: a calendar, and what the rest of the node tells about itself.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog

from gateway.admission.calendar import Calendar, CalendarSettings, SlotCalendar
from gateway.admission.clock import TOLERANCE_S, FleetClock
from gateway.admission.keyring import Keyring
from gateway.admission.revocation import Revocation
from gateway.cluster.devices import DeviceKey, DeviceRegistry
from gateway.cluster.errors import RedisRefused, RedisUnavailable
from gateway.cluster.fences import Fences
from gateway.cluster.link import RedisLink
from gateway.cluster.nodes import FleetView, NodeHooks, NodeRegistry
from gateway.cluster.revocations import RevocationFeed
from gateway.cluster.secrets import SharedSecrets
from gateway.cluster.shared_calendar import SharedCalendar
from gateway.edge.device import DeviceHandler
from gateway.edge.fleet import Fleet
from gateway.fleet_page import fleet_status, register_fleet_gauges
from gateway.revocations import Revocations
from gateway.session.errors import TakenOver
from gateway.settings import Cluster
from gateway.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)

_OPEN_TIMEOUT_S: Final = 5.0
"""A start waits so long for Redis; then the node goes on alone."""
_RETRY_S: Final = 1.0
_CLOCK_LOOK_S: Final = 10.0

Work = tuple[str, Coroutine[Any, Any, None]]


class Membership(Protocol):
    """What the node is, to others."""

    @property
    def calendar(self) -> Calendar:
        """Where slots come from. Local times."""

    @property
    def peers(self) -> int:
        """Other nodes that could take this one's devices."""

    async def open(self) -> None:
        """Meet the fleet, before the first knock."""

    def work(self) -> Iterable[Work]:
        """What must run as long as the node does."""

    def propose(self, rate_per_s: float) -> None:
        """This node could live with so many admissions a second."""

    def arrived(self, key: DeviceKey, fence: int) -> None:
        """A session was established."""

    def departed(self, key: DeviceKey, fence: int) -> None:
        """A session ended."""

    def status(self) -> dict[str, Any]:
        """For the status page."""

    def register_gauges(self, metrics: Metrics) -> None:
        """For the metrics page."""

    async def close(self) -> None:
        """The node stops."""


class LoneNode:
    """A node of its own: the null form of `Membership`."""

    peers = 0

    def __init__(self, settings: CalendarSettings, *, rate_per_s: float, now: float) -> None:
        self.calendar = SlotCalendar(settings, rate_per_s=rate_per_s, now=now)

    async def open(self) -> None:
        pass

    def work(self) -> Iterable[Work]:
        return ()

    def propose(self, rate_per_s: float) -> None:
        self.calendar.set_rate(rate_per_s)

    def arrived(self, key: DeviceKey, fence: int) -> None:
        pass

    def departed(self, key: DeviceKey, fence: int) -> None:
        pass

    def status(self) -> dict[str, Any]:
        return {}

    def register_gauges(self, metrics: Metrics) -> None:
        pass

    async def close(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class MemberHooks:
    """What a member of a fleet asks and tells the rest of the node."""

    on_calendar: Callable[[], None]
    """R has changed, or there are new slots."""
    on_secrets: Callable[[], None]
    """The keyring has changed."""


class FleetNode:
    """A member of a fleet over Redis."""

    def __init__(
        self,
        settings: Cluster,
        calendar: CalendarSettings,
        *,
        node: str,
        rate_per_s: float,
        clock: FleetClock,
        local: Callable[[], float],
        keyring: Keyring,
        revocations: Revocations,
        fleet: Fleet[DeviceHandler],
        fences: Fences,
        hooks: MemberHooks,
        rng: random.Random,
    ) -> None:
        """
        Args:
            settings: of the cluster; `redis_url` is set.
            calendar: settings of the fleet's calendar.
            node: name of this process.
            rate_per_s: R until the fleet has agreed on one.
            clock: fleet time.
            local: local time, seconds.
            keyring: the ticket secrets of this node.
            revocations: the facts of this node.
            fleet: its sessions.
            fences: of those sessions.
            hooks: what is told to the rest of the node.
            rng: source of jitter.
        """
        assert settings.redis_url is not None
        self._clock = clock
        self._fleet = fleet
        self._fences = fences
        self._hooks = hooks
        self._revocations = revocations
        self.keyring = keyring
        self._proposal_per_s = rate_per_s
        self._behind = asyncio.Event()
        """Set while this node may have missed what others said, or they what it said."""
        url = settings.redis_url.get_secret_value()
        self.link = link = RedisLink(url, prefix=settings.key_prefix, rng=rng)
        self._secrets = SharedSecrets(link, keyring, on_change=hooks.on_secrets)
        link.on_up += [self._secrets.exchange, self._mark_behind]
        self.nodes = NodeRegistry(
            link,
            node=node,
            heartbeat_s=settings.heartbeat_ms / 1000,
            timeout_s=settings.node_timeout_ms / 1000,
            assumed_nodes=settings.assumed_nodes,
            marked_keys=[link.key(name) for name in ("devices", "revoked", "ticket-secrets")],
            clock=clock,
            hooks=NodeHooks(
                proposal=lambda: self._proposal_per_s,
                accepted=lambda: keyring.ids,
                on_fleet=self._on_fleet,
                on_forgotten=self._on_forgotten,
                on_behind=self._behind.set,
                on_step=self._on_step,
            ),
            rng=rng,
        )
        self._feed = RevocationFeed(
            link, known=revocations.facts.facts, on_facts=revocations.learn, clock=clock
        )
        revocations.share_with(self._share)
        self._devices = DeviceRegistry(
            link,
            node=node,
            alive_key=self.nodes.alive_key,
            clock=clock,
            present=lambda: [(each.key, each.fence) for each in fleet if each.fence],
            on_newer=self._on_newer,
        )
        self.shared = SharedCalendar(
            link,
            calendar,
            node=node,
            nodes=self.nodes,
            rate_per_s=rate_per_s,
            lease_s=settings.lease_ms / 1000,
            clock=clock,
            local=local,
            on_leased=hooks.on_calendar,
        )

    @property
    def calendar(self) -> Calendar:
        return self.shared.calendar

    @property
    def peers(self) -> int:
        return self.nodes.nodes - 1 if self.link.up else 0

    def propose(self, rate_per_s: float) -> None:
        self._proposal_per_s = rate_per_s

    def arrived(self, key: DeviceKey, fence: int) -> None:
        self._devices.arrived(key, fence)

    def departed(self, key: DeviceKey, fence: int) -> None:
        self._devices.departed(key, fence)

    async def open(self) -> None:
        """Find Redis: its time, the secrets of the fleet, how many share R, what is revoked.

        If it is away, the node goes on alone, with the share it is set to assume.

        Raises:
            RedisRefused: a password, a right or a certificate is wrong.
        """
        try:
            await asyncio.wait_for(self._meet(), _OPEN_TIMEOUT_S)
        except RedisRefused:
            await self.link.close()
            raise
        except (RedisUnavailable, TimeoutError):
            _log.warning("started_without_redis", assumed_nodes=self.nodes.nodes)
            self.nodes.alone()
            self.keyring.ask_nobody()
            self._hooks.on_secrets()

    async def _meet(self) -> None:
        await self.link.open()
        await self._feed.exchange()

    def work(self) -> Iterable[Work]:
        yield "redis", self.link.run()
        yield "lease", self.shared.run()
        yield "heartbeat", self.nodes.run()
        yield "devices", self._devices.run()
        yield "give-back", self._give_back()
        yield "clock", self._watch_clock()
        channels = [self._feed.channel, self._devices.channel]
        yield "redis-listen", self.link.listen(channels, self._on_message, self._behind.set)

    async def close(self) -> None:
        try:
            await self.nodes.leave()
        except RedisUnavailable as exc:
            _log.info("left_without_saying_so", error=str(exc))
        await self.link.close()

    # What is heard

    def _on_message(self, channel: str, text: str) -> None:
        if channel == self._feed.channel:
            self._feed.on_message(text)
        else:
            self._devices.on_message(text)

    def _on_fleet(self, view: FleetView) -> None:
        self.shared.calendar.set_fleet(view.rate_per_s, view.nodes)
        if view.together:
            self.shared.rejoin()
        elif self._clock.disputed:
            self.shared.go_alone()
        if self._secrets.heard(view.accepts):
            self._behind.set()
        self._hooks.on_calendar()

    def _on_forgotten(self) -> None:
        self.shared.go_alone()
        self._behind.set()

    def _on_step(self, step_s: float) -> None:
        """Fences are fleet time: those of live sessions move with it."""
        for session in self._fleet:
            if session.fence:
                session.fence = self._fences.moved(session.fence, step_s)
        self._fences.step(step_s)
        self._behind.set()

    def _on_newer(self, key: DeviceKey, fence: int) -> None:
        """The device has a newer connection on another node."""
        session = self._fleet.find(*key)
        if session is not None and session.fence < fence:
            session.superseded = True
            session.end(TakenOver())

    async def _share(self, facts: Sequence[Revocation]) -> bool:
        try:
            await self._feed.share(facts)
        except RedisUnavailable as exc:
            _log.error("revocation_not_shared", error=str(exc))  # the message is whole
            return False
        return True

    async def _mark_behind(self) -> None:
        """Redis answers again: what was said meanwhile was not heard."""
        self._behind.set()

    async def _give_back(self) -> None:
        """When something may have been missed: tell all that this node knows, and hear all."""
        while True:
            await self._behind.wait()
            await self.link.wait_up()
            self._behind.clear()
            try:
                await self._secrets.exchange()
                await self._feed.exchange()
                self._revocations.all_shared()
                await self._devices.register_all()
            except RedisUnavailable:
                self._behind.set()
                await asyncio.sleep(_RETRY_S)

    async def _watch_clock(self) -> None:
        """A wall clock that is wrong harms nobody here, but credentials are judged by it."""
        wrong = False
        while True:
            error_s = self._clock.wall_error_s
            if (abs(error_s) > TOLERANCE_S) != wrong:
                wrong = not wrong
                if wrong:
                    _log.warning("wall_clock_wrong", ahead_s=round(error_s, 1))
                else:
                    _log.info("wall_clock_right")
            await asyncio.sleep(_CLOCK_LOOK_S)

    # What is shown (see `fleet_page.py`)

    def status(self) -> dict[str, Any]:
        return fleet_status(self.link, self.nodes, self.shared, self._clock, self.keyring)

    def register_gauges(self, metrics: Metrics) -> None:
        register_fleet_gauges(
            metrics, self.link, self.nodes, self.shared, self._clock, self.keyring
        )
