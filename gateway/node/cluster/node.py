"""This node as a member of a fleet over Redis.

Parts of `cluster/` share the calendar, the device registry, the revocations and the ticket secrets.
This module connects them with the node. What was said or heard while Redis was away may be missing
on either side: then the node is behind, and exchanges everything as soon as Redis answers.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from gateway.admission.calendar import Calendar, CalendarSettings
from gateway.admission.clock import TOLERANCE_S, FleetClock
from gateway.admission.keyring import Keyring
from gateway.admission.revocation import Revocation, Subject
from gateway.cluster.admission_news import AdmissionNews
from gateway.cluster.claims import Claims
from gateway.cluster.devices import DeviceKey, DeviceRegistry
from gateway.cluster.errors import RedisRefused, RedisUnavailable
from gateway.cluster.inquiries import Inquiries
from gateway.cluster.link import RedisLink
from gateway.cluster.nodes import FleetView, NodeHooks, NodeRegistry
from gateway.cluster.overrides import Override, Overrides
from gateway.cluster.revocations import RevocationFeed
from gateway.cluster.secrets import SharedSecrets
from gateway.cluster.shared_calendar import SharedCalendar
from gateway.cluster.steering import SteeringFeed
from gateway.node.cluster.membership import Reach
from gateway.node.cluster.page import fleet_status, register_fleet_gauges
from gateway.node.cluster.revocations import Revocations
from gateway.node.cluster.roll import Alive, Roll
from gateway.node.cluster.sessions import FleetSessions
from gateway.process import Work
from gateway.settings import Cluster
from gateway.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)

_OPEN_TIMEOUT_S: Final = 5.0
"""A start waits so long for Redis; then the node goes on alone."""
_RETRY_S: Final = 1.0
_MARKED: Final = ("devices", "revoked", "ticket-secrets", "steering")
"""Keys whose loss must be noticed."""
_CLOCK_LOOK_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Member:
    """What a member of a fleet knows of its node."""

    node: str
    """Name of this process."""
    rate_per_s: float
    """R until the fleet has agreed on one."""
    clock: FleetClock
    local: Callable[[], float]
    """Local time, seconds."""
    keyring: Keyring
    """The ticket secrets of this node."""
    revocations: Revocations
    overrides: Overrides
    sessions: FleetSessions
    fence_source: str
    """Where the fences of this node come from: `DeviceRegistry` says what that means."""
    answer: Callable[[dict[str, Any]], dict[str, Any]]
    """What this node knows of a device, for other nodes."""
    on_calendar: Callable[[], None]
    """R has changed, or there are new slots."""
    on_admitted: Callable[[Sequence[bytes]], None]
    """Other nodes have admitted devices, which are named by their hashes."""
    on_secrets: Callable[[], None]
    """The keyring has changed."""
    roll: Roll
    """The nodes that are alive."""
    rng: random.Random


class FleetNode:
    """A member of a fleet over Redis."""

    def __init__(self, settings: Cluster, calendar: CalendarSettings, member: Member) -> None:
        """
        Args:
            settings: of the cluster; `redis_url` is set.
            calendar: settings of the fleet's calendar.
            member: what this node is.
        """
        assert settings.redis_url is not None
        self._member = member
        self._proposal_per_s = member.rate_per_s
        self._unshared: set[Subject] = set()
        self._behind = asyncio.Event()
        """Set while this node may have missed what others said, or they what it said."""
        url = settings.redis_url.get_secret_value()
        self.link = link = RedisLink(url, prefix=settings.key_prefix, rng=member.rng)
        self._secrets = SharedSecrets(link, member.keyring, on_change=member.on_secrets)
        link.on_up += [self._secrets.exchange, self._mark_behind]
        self.nodes = nodes = self._registry(settings)
        revocations = member.revocations
        self._feed = RevocationFeed(
            link,
            known=revocations.facts.facts,
            on_facts=revocations.learn,
            clock=member.clock,
        )
        self._steering = SteeringFeed(link, member.overrides)
        self._inquiries = Inquiries(link, node=member.node, answer=member.answer)
        self._devices = DeviceRegistry(
            link,
            node=member.node,
            alive_key=nodes.alive_key,
            fleet_key=nodes.fleet_key,
            fence_source=member.fence_source,
            clock=member.clock,
            sessions=member.sessions,
            news=AdmissionNews(link, node=member.node, on_admitted=member.on_admitted),
        )
        self.shared = SharedCalendar(
            link,
            calendar,
            node=member.node,
            nodes=nodes,
            rate_per_s=member.rate_per_s,
            lease_s=settings.lease_ms / 1000,
            clock=member.clock,
            local=member.local,
            on_leased=member.on_calendar,
        )

    def _registry(self, settings: Cluster) -> NodeRegistry:
        link, member = self.link, self._member
        return NodeRegistry(
            link,
            node=member.node,
            heartbeat_s=settings.heartbeat_ms / 1000,
            timeout_s=settings.node_timeout_ms / 1000,
            assumed_nodes=settings.assumed_nodes,
            marked_keys=[link.key(name) for name in _MARKED],
            clock=member.clock,
            hooks=NodeHooks(
                proposal=self._proposal,
                accepted=lambda: member.keyring.ids,
                on_fleet=self._on_fleet,
                on_forgotten=self._on_forgotten,
                on_behind=self._on_behind,
                on_step=self._on_step,
            ),
            rng=member.rng,
        )

    @property
    def calendar(self) -> Calendar:
        return self.shared.calendar

    @property
    def peers(self) -> int:
        return self.nodes.nodes - 1 if self.link.up else 0

    @property
    def alive(self) -> Alive | None:
        return self._member.roll.alive if self.link.up else None

    @property
    def pending(self) -> int:
        return len(self._unshared)

    def propose(self, rate_per_s: float) -> None:
        self._proposal_per_s = rate_per_s

    def _proposal(self) -> float:
        return self._proposal_per_s

    def arrived(self, key: DeviceKey, fence: int, holder: bytes) -> None:
        self._devices.arrived(key, fence, holder)

    def departed(self, key: DeviceKey, fence: int) -> None:
        self._devices.departed(key, self._member.sessions.ended(key, fence))

    async def share(self, facts: Sequence[Revocation]) -> Reach:
        subjects = {fact.key for fact in facts}
        self._unshared |= subjects
        try:
            await self._feed.share(facts)
        except RedisUnavailable as exc:
            _log.error("revocation_not_shared", error=str(exc))  # the message is whole
            return Reach.PENDING
        self._unshared -= subjects
        return Reach.FLEET

    async def steer(self, facts: Sequence[Override]) -> Reach:
        try:
            await self._steering.share(facts)
        except RedisUnavailable as exc:
            _log.error("steering_not_shared", error=str(exc))  # the message is whole
            self._behind.set()
            return Reach.PENDING
        return Reach.FLEET

    async def claim(self, work: Mapping[str, float], *, lease_s: float) -> dict[str, str]:
        return await self._claims().take(work, lease_s=lease_s)

    async def claim_done(self, names: Sequence[str]) -> None:
        await self._claims().done(names)

    def _claims(self) -> Claims:
        return Claims(self.link, node=self._member.node, clock=self._member.clock)

    async def ask(self, question: dict[str, Any]) -> list[dict[str, Any]]:
        return await self._inquiries.ask(question, self.peers)

    def set_burst(self, burst: float) -> None:
        self.shared.set_burst(burst)

    async def open(self) -> None:
        """Find Redis: its time, the secrets of the fleet, how many share R, what is revoked.

        If it is away, the node goes on alone, with the share it is set to assume.

        Raises:
            RedisRefused: a password, a right or a certificate is wrong.
        """
        try:
            async with asyncio.timeout(_OPEN_TIMEOUT_S):
                await self._meet()
        except RedisRefused:
            await self.link.close()
            raise
        except (RedisUnavailable, TimeoutError):
            _log.warning("started_without_redis", assumed_nodes=self.nodes.nodes)
            self.nodes.alone()
            self._secrets.alone()

    async def _meet(self) -> None:
        await self.link.open()
        await self._feed.exchange()
        await self._steering.exchange()

    def work(self) -> Iterable[Work]:
        yield "redis", self.link.run()
        yield "lease", self.shared.run()
        yield "heartbeat", self.nodes.run()
        yield "devices", self._devices.run()
        yield "admission-news", self._devices.news.run()
        yield "give-back", self._give_back()
        yield "clock", watch_wall_clock(self._member.clock)
        heard = self._heard()

        def on_message(channel: str, text: str) -> None:
            heard[channel](text)

        yield "redis-listen", self.link.listen(list(heard), on_message, self._behind.set)

    async def close(self) -> None:
        await self._inquiries.close()
        try:
            await self.nodes.leave()
        except RedisUnavailable as exc:
            _log.info("left_without_saying_so", error=str(exc))
        await self.link.close()

    # What is heard

    def _heard(self) -> dict[str, Callable[[str], None]]:
        """What takes the messages of each channel."""
        questions, answers = self._inquiries.channels
        return {
            self._feed.channel: self._feed.on_message,
            self._steering.channel: self._steering.on_message,
            self._devices.channel: self._devices.on_message,
            self._devices.news.channel: self._devices.news.on_message,
            questions: self._inquiries.on_question,
            answers: self._inquiries.on_answer,
        }

    def _on_fleet(self, view: FleetView) -> None:
        self.shared.calendar.set_fleet(view.rate_per_s, view.nodes)
        member = self._member
        member.roll.heard(view.accepts, together=view.together)
        if view.together:
            self.shared.rejoin()
        elif member.clock.disputed:
            self.shared.go_alone()
        if self._secrets.heard(view.accepts, complete=view.complete):
            self._behind.set()
        member.on_calendar()

    def _on_forgotten(self) -> None:
        self.shared.go_alone()
        self._on_behind()

    def _on_behind(self) -> None:
        """The others may have taken this node for dead."""
        self._member.roll.doubted()
        self._behind.set()

    def _on_step(self, step_s: float) -> None:
        self._member.sessions.time_stepped(step_s)
        if abs(step_s) > TOLERANCE_S:
            self._member.roll.doubted()
        self._behind.set()

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
                await self._steering.exchange()
                self._unshared.clear()
                await self._devices.register_all()
            except RedisUnavailable:
                self._behind.set()
                await asyncio.sleep(_RETRY_S)

    # What is shown (see `page.py`)

    def status(self) -> dict[str, Any]:
        member = self._member
        return fleet_status(self.link, self.nodes, self.shared, member.clock, member.keyring)

    def register_gauges(self, metrics: Metrics) -> None:
        member = self._member
        register_fleet_gauges(
            metrics, self.link, self.nodes, self.shared, member.clock, member.keyring
        )


async def watch_wall_clock(clock: FleetClock) -> None:
    """Log when the wall clock, by which credentials are judged, goes wrong and right again."""
    wrong = False
    while True:
        error_s = clock.wall_error_s
        if (abs(error_s) > TOLERANCE_S) != wrong:
            wrong = not wrong
            if wrong:
                _log.warning("wall_clock_wrong", ahead_s=round(error_s, 1))
            else:
                _log.info("wall_clock_right")
        await asyncio.sleep(_CLOCK_LOOK_S)
