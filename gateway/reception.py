"""Composition of admission: the desk and its calendar, tickets, limits, and the fleet over Redis.

`app.py` builds the node; this module builds what stands between an accepted socket and a session,
keeps R in step with the node's health, and tells the fleet about this node.
"""

import asyncio
import random
import secrets
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog

from gateway import durable_file
from gateway.admission.budget import VerificationBudget
from gateway.admission.calendar import Calendar, CalendarSettings, SlotCalendar
from gateway.admission.clock import FleetClock
from gateway.admission.controller import ControllerSettings, Marks, RateController
from gateway.admission.desk import AdmissionDesk, DeskSettings
from gateway.admission.gcra import KeyedLimiter
from gateway.admission.revocation import Revocation, RevocationList
from gateway.admission.ticket import TicketOffice, device_hash
from gateway.cluster.devices import DeviceKey, DeviceRegistry
from gateway.cluster.errors import RedisUnavailable
from gateway.cluster.link import RedisLink
from gateway.cluster.nodes import NodeRegistry
from gateway.cluster.revocations import RevocationFeed
from gateway.cluster.shared_calendar import SharedCalendar
from gateway.edge.device import DeviceContext, DeviceHandler
from gateway.edge.fleet import Fleet
from gateway.edge.gate import DeviceGate, GateContext, Pending
from gateway.edge.hold import StreamHold
from gateway.revocations import Revocations
from gateway.session.errors import TakenOver
from gateway.settings import Settings
from gateway.telemetry.metrics import Metrics

_log = structlog.get_logger(__name__)

_OBSERVE_S: Final = 1.0
_LAG_PROBE_S: Final = 0.05
_WATCH_S: Final = 0.1
_LIMITER_KEYS_MAX: Final = 100_000
_RESERVE_TRIES: Final = 100

Work = tuple[str, Coroutine[Any, Any, None]]


class Reception:
    """Everything that admits, of one node."""

    def __init__(
        self,
        settings: Settings,
        *,
        node: str,
        fleet: Fleet[DeviceHandler],
        metrics: Metrics,
        rng: random.Random,
        downstream: Callable[[], dict[str, float]],
        trouble: Callable[[], str | None],
        hold: StreamHold,
    ) -> None:
        """
        Args:
            settings: of the gateway.
            node: name of this process.
            fleet: the sessions of this node.
            metrics: where counts go.
            rng: source of jitter.
            downstream: present signals of the publishing side, for the rate controller.
            trouble: why nothing is being stored right now, or None.
            hold: of the sessions, while that is so.
        """
        self._settings = settings
        self._node = node
        self._fleet = fleet
        self._rng = rng
        self._downstream = downstream
        self._trouble = trouble
        self._hold = hold
        self._lag_s = 0.0
        self._last_fence = 0
        self._shared_secret = b""
        self._gate: DeviceGate | None = None
        self.clock = FleetClock(time.time, time.monotonic)
        self.revocations = Revocations(
            RevocationList(lambda: min(time.time(), self.clock())),
            file=settings.nats.data_dir / "revocations.jsonl",
            sessions=lambda: fleet,
        )
        admission = settings.admission
        now = self.clock()
        calendar_settings = CalendarSettings(
            burst=admission.burst,
            horizon_s=admission.horizon_ms / 1000,
            priority_share=admission.priority_share,
        )
        self._office = TicketOffice(self._own_secrets())
        self.controller = RateController(
            ControllerSettings(
                floor_per_s=admission.rate_floor_per_s,
                ceiling_per_s=admission.rate_per_s,
                marks={
                    "puback_p99": Marks(
                        admission.puback_p99_ms.low / 1000, admission.puback_p99_ms.high / 1000
                    ),
                    "publish_backlog": Marks(
                        admission.publish_backlog.low, admission.publish_backlog.high
                    ),
                    "loop_lag": Marks(
                        admission.loop_lag_ms.low / 1000, admission.loop_lag_ms.high / 1000
                    ),
                },
            )
        )
        self._link: RedisLink | None = None
        self._own: SlotCalendar | None = None
        self._shared: SharedCalendar | None = None
        if settings.cluster.redis_url is not None:
            self._join_fleet(settings.cluster.redis_url.get_secret_value(), calendar_settings)
        else:
            self._own = SlotCalendar(calendar_settings, rate_per_s=admission.rate_per_s, now=now)
        self._desk: AdmissionDesk[Pending] = AdmissionDesk(
            DeskSettings(
                burst=admission.burst,
                park_s=admission.park_ms / 1000,
                patience_s=admission.patience_ms / 1000,
                window_s=admission.window_ms / 1000,
                late_s=admission.late_ms / 1000,
                lot_places=admission.lot_places,
                resume_cost=admission.resume_cost,
                horizon_s=admission.horizon_ms / 1000,
                overload_retry_s=admission.overload_retry_ms / 1000,
            ),
            calendar=self.calendar,
            office=self._office,
            observer=metrics,
            rng=rng,
            now=now,
        )
        self._budget = VerificationBudget(share=admission.verification_share, now=now)
        self._register_gauges(metrics)

    # The fleet

    def _join_fleet(self, url: str, calendar: CalendarSettings) -> None:
        cluster, admission = self._settings.cluster, self._settings.admission
        link = self._link = RedisLink(url, prefix=cluster.key_prefix, rng=self._rng)
        link.on_up.append(self._share_secret)
        self._nodes = NodeRegistry(
            link,
            node=self._node,
            heartbeat_s=cluster.heartbeat_ms / 1000,
            timeout_s=cluster.node_timeout_ms / 1000,
            clock=self.clock,
            proposal=lambda: self.controller.rate_per_s,
            on_fleet=self._on_fleet,
            rng=self._rng,
        )
        self._feed = RevocationFeed(
            link,
            known=self.revocations.facts.facts,
            on_facts=self.revocations.learn,
            clock=self.clock,
        )
        self.revocations.share_with(self._share_facts)
        self._devices = DeviceRegistry(
            link,
            node=self._node,
            present=lambda: [(each.key, each.fence) for each in self._fleet if each.fence],
            on_newer=self._on_newer,
        )
        self._shared = SharedCalendar(
            link,
            calendar,
            rate_per_s=admission.rate_per_s,
            lease_s=cluster.lease_ms / 1000,
            clock=self.clock,
            on_leased=self._pump,
        )

    def _on_message(self, channel: str, text: str) -> None:
        if channel == self._feed.channel:
            self._feed.on_message(text)
        else:
            self._devices.on_message(text)

    async def _catch_up(self) -> None:
        """What other nodes said while this one did not hear."""
        await self._feed.exchange()
        self.revocations.all_shared()
        await self._devices.register_all()

    async def _share_facts(self, facts: Sequence[Revocation]) -> bool:
        try:
            await self._feed.share(facts)
        except RedisUnavailable as exc:
            _log.error("revocation_not_shared", error=str(exc))  # the message is whole
            return False
        return True

    def _on_fleet(self, rate_per_s: float, nodes: int, complete: bool) -> None:
        assert self._shared is not None
        self._shared.calendar.set_fleet(rate_per_s, nodes)
        if complete:
            self._shared.rejoin()
        self._desk.set_rate(self.calendar.rate_per_s, self.clock())

    def _on_newer(self, key: DeviceKey, fence: int) -> None:
        """The device has a newer connection on another node."""
        session = self._fleet.find(*key)
        if session is not None and session.fence < fence:
            session.superseded = True
            session.end(TakenOver())

    def _pump(self) -> None:
        self._desk.set_rate(self.calendar.rate_per_s, self.clock())
        if self._gate is not None:
            self._gate.pump()

    async def _share_secret(self) -> None:
        """One secret for the fleet: the configured one, or whichever node's was first."""
        if self._settings.admission.ticket_secrets:
            return
        assert self._link is not None
        key = self._link.key("ticket-secret")
        own = self._own_secrets()
        # A Redis that lost its memory is given what the fleet agreed on, not some node's own:
        # tickets are out there.
        proposed = self._shared_secret or own[0]
        await self._link.call(lambda client: client.set(key, proposed.decode(), nx=True))
        agreed: str = await self._link.call(lambda client: client.get(key))
        self._shared_secret = agreed.encode()
        older = [proposed] if proposed != self._shared_secret else []
        self._office.rotate([self._shared_secret, *older, *own])

    def _own_secrets(self) -> list[bytes]:
        configured = self._settings.admission.ticket_secrets
        if configured:
            return [secret.get_secret_value().encode() for secret in configured]
        return [_ensure_secret(self._settings.nats.data_dir / "ticket-secret")]

    # SessionWatch

    def next_fence(self) -> int:
        self._last_fence = max(self._last_fence + 1, int(self.clock() * 1_000_000))
        return self._last_fence

    def established(self, key: DeviceKey, fence: int) -> None:
        if self._link is not None:
            self._devices.arrived(key, fence)

    def ended(self, key: DeviceKey, fence: int) -> None:
        if self._link is not None:
            self._devices.departed(key, fence)

    # Running

    def open_gate(self, device: DeviceContext) -> DeviceGate:
        """The gate of the device listener."""
        admission = self._settings.admission
        self.revocations.load()
        self._gate = DeviceGate(
            GateContext(
                device=device,
                desk=self._desk,
                office=self._office,
                budget=self._budget,
                device_knocks=KeyedLimiter(
                    rate_per_s=admission.device_knocks_per_s,
                    burst=admission.device_knock_burst,
                    keys_max=_LIMITER_KEYS_MAX,
                ),
                address_knocks=KeyedLimiter(
                    rate_per_s=admission.address_knocks_per_s,
                    burst=admission.address_knock_burst,
                    keys_max=_LIMITER_KEYS_MAX,
                ),
                connections_max=self._settings.server.connections_max,
                known_within_s=admission.resume_within_ms / 1000,
                clock=self.clock,
                rng=self._rng,
                loop=asyncio.get_running_loop(),
            )
        )
        return self._gate

    def work(self) -> Iterable[Work]:
        """What must run as long as the node does."""
        yield "admission-rate", self._keep_rate()
        yield "loop-lag", self._watch_lag()
        yield "stream-hold", self._watch_stream()
        yield "revocations", self.revocations.run()
        if self._link is not None and self._shared is not None:
            yield "redis", self._link.run()
            yield "lease", self._shared.run()
            yield "heartbeat", self._nodes.run()
            yield "devices", self._devices.run()
            channels = [self._feed.channel, self._devices.channel]
            yield "redis-listen", self._link.listen(channels, self._on_message, self._catch_up)

    async def close(self) -> None:
        await self._hold.close()
        await self.revocations.close()
        if self._link is not None:
            try:
                await self._nodes.leave()
            except RedisUnavailable as exc:
                _log.info("left_without_saying_so", error=str(exc))
            await self._link.close()

    @property
    def calendar(self) -> Calendar:
        if self._shared is not None:
            return self._shared.calendar
        assert self._own is not None
        return self._own

    @property
    def peers(self) -> int:
        """Other nodes that could take this one's devices."""
        return self._nodes.nodes - 1 if self._link is not None and self._link.up else 0

    async def slot_elsewhere(self, session: DeviceHandler) -> tuple[int, str]:
        """A slot for a device that must leave: milliseconds from now, and its ticket."""
        tenant, device = session.key
        for _ in range(_RESERVE_TRIES):
            if self.calendar.ready(self.clock()):
                break
            await asyncio.sleep(self._settings.cluster.lease_ms / 1000)
        now = self.clock()
        cost = self._settings.admission.resume_cost
        slot = self.calendar.reserve(now, cost, priority=False)
        if slot is None:
            return self._rng.randrange(1, self._fleet.first_retry_ms + 1), ""
        slot = max(slot, now)
        ticket = self._office.issue(slot, holder=device_hash(tenant, device), now=now)
        return max(1, round((slot - now) * 1000)), ticket

    async def _keep_rate(self) -> None:
        """R follows the node's health; a stream that stores nothing stops admission."""
        while True:
            await asyncio.sleep(_OBSERVE_S)
            signals = {**self._downstream(), "loop_lag": self._lag_s}
            self._lag_s = 0.0
            now = self.clock()
            before = self.controller.rate_per_s
            rate_per_s = self.controller.observe(signals, now)
            if rate_per_s < before:
                _log.warning(
                    "admission_slowed",
                    rate_per_s=round(rate_per_s, 1),
                    limited_by=self.controller.limited_by,
                )
            if self._own is not None:
                self._own.set_rate(rate_per_s)
                self._desk.set_rate(rate_per_s, now)

    async def _watch_stream(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_S)
            self.hold_or_release()

    def hold_or_release(self) -> None:
        """Admit nobody while nothing is being stored; admit again when it is."""
        trouble = self._trouble()
        if trouble is None:
            if self._desk.held:
                _log.info("admission_released")
                self._desk.release()
            self._hold.disengage()
            return
        self._hold.engage("stream")
        if not self._desk.held and self._gate is not None:
            _log.warning("admission_held", reason=trouble)
            self._gate.hold(trouble)

    async def _watch_lag(self) -> None:
        """How late the loop runs what is due: the surest sign of a core that is full."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LAG_PROBE_S
            await asyncio.sleep(_LAG_PROBE_S)
            self._lag_s = max(self._lag_s, loop.time() - due)

    # What is shown

    def status(self) -> dict[str, Any]:
        now = self.clock()
        page: dict[str, Any] = {
            "rate_per_s": round(self.calendar.rate_per_s, 1),
            "limited_by": self.controller.limited_by,
            "held": self._desk.held,
            "lead_s": round(self._desk.lead_s(now), 3),
            "parked": self._desk.parked,
            "revoked": len(self.revocations.facts.in_force()),
            "revocations_pending": self.revocations.pending,
        }
        if self._link is not None and self._shared is not None:
            page["fleet"] = {
                "redis_up": self._link.up,
                "nodes": self._nodes.nodes,
                "alone": self._shared.calendar.alone,
                "leases": self._shared.leases,
            }
        return page

    def _register_gauges(self, metrics: Metrics) -> None:
        gauge, clock = metrics.gauge, self.clock
        gauge(
            "tidegate_admission_rate_per_second",
            "R: admissions a second this node reckons with.",
            lambda: self.calendar.rate_per_s,
        )
        gauge(
            "tidegate_admission_proposal_per_second",
            "R as this node's health would have it.",
            lambda: self.controller.rate_per_s,
        )
        metrics.choice(
            "tidegate_admission_limited_by",
            "1 for what holds R down.",
            "signal",
            ("ceiling", "puback_p99", "publish_backlog", "loop_lag"),
            lambda: self.controller.limited_by,
        )
        gauge(
            "tidegate_admission_lead_seconds",
            "Until the next free slot: the predicted time to drain what waits.",
            lambda: self._desk.lead_s(clock()),
        )
        gauge("tidegate_waiting", "Knocks waiting in the handshake.", lambda: self._desk.parked)
        gauge(
            "tidegate_admission_held",
            "1 while admission is stopped because the stream stores nothing.",
            lambda: int(self._desk.held),
        )
        metrics.counted(
            "tidegate_unverified_credential_seconds_total",
            "CPU time spent on signatures nobody had verified before.",
            lambda: self._budget.spent_s,
        )
        gauge(
            "tidegate_knock_herd_index",
            "Peak over mean of the last minute's knocks.",
            lambda: self._gate.herd.value(clock()) if self._gate is not None else 0.0,
        )
        if self._link is not None:
            gauge("tidegate_redis_up", "1 while Redis answers.", partial(_up, self._link))
            gauge("tidegate_fleet_nodes", "Nodes that live.", lambda: self._nodes.nodes)
            shared = self._shared
            assert shared is not None
            metrics.counted(
                "tidegate_calendar_leases_total",
                "Blocks of slots leased from the fleet's calendar.",
                lambda: shared.leases,
            )


def _up(link: RedisLink) -> float:
    return float(link.up)


def _ensure_secret(path: Path) -> bytes:
    """The node's own secret, made on first use: a restart honours its predecessor's tickets."""
    if not path.exists():
        durable_file.create(path, secrets.token_urlsafe(32))
    return path.read_bytes().strip()
