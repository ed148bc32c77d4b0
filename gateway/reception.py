"""Composition of admission: the desk and its calendar, tickets, limits, and the fleet over Redis.

`app.py` builds the node; this module builds what stands between an accepted socket and a session,
keeps R in step with the node's health, and tells the fleet about this node.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import structlog

from gateway.admission.budget import VerificationBudget
from gateway.admission.calendar import Calendar, CalendarSettings
from gateway.admission.clock import FleetClock
from gateway.admission.controller import ControllerSettings, Marks, RateController
from gateway.admission.desk import AdmissionDesk, DeskSettings
from gateway.admission.gcra import KeyedLimiter
from gateway.admission.office import NodeTicketOffice
from gateway.admission.revocation import RevocationList
from gateway.admission.ticket import device_hash
from gateway.cluster.devices import DeviceKey
from gateway.cluster.fences import Fences
from gateway.edge.anteroom import Anteroom
from gateway.edge.device import DeviceContext, DeviceHandler
from gateway.edge.fleet import Fleet
from gateway.edge.gate import DeviceGate, GateContext, Pending
from gateway.edge.hold import StreamHold
from gateway.membership import FleetNode, LoneNode, MemberHooks, Membership, Work
from gateway.revocations import Revocations
from gateway.settings import Settings
from gateway.telemetry.metrics import Metrics
from gateway.ticket_secrets import KeptSecrets

_log = structlog.get_logger(__name__)

_OBSERVE_S: Final = 1.0
_LAG_PROBE_S: Final = 0.05
_WATCH_S: Final = 0.1
_LIMITER_KEYS_MAX: Final = 100_000
_RESERVE_TRIES: Final = 100

_AHEAD_SLACK_S: Final = 60.0
"""A calendar may be a little further ahead than its horizon: by its last block, and by priority."""


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
        wall: Callable[[], float] = time.time,
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
            wall: Unix time as this machine has it, seconds.
        """
        self._settings = settings
        self._node = node
        self._fleet = fleet
        self._rng = rng
        self._downstream = downstream
        self._trouble = trouble
        self._hold = hold
        self._lag_s = 0.0
        self._gate: DeviceGate | None = None
        # Whatever measures is in local time; fleet time is only what is promised to others.
        self._local = time.monotonic
        clock = FleetClock(wall, self._local)
        self._fences = Fences(clock)
        self.revocations = Revocations(
            RevocationList(lambda: min(wall(), clock())),
            file=settings.nats.data_dir / "revocations.jsonl",
            sessions=lambda: fleet,
        )
        admission = settings.admission
        now = self._local()
        calendar_settings = CalendarSettings(
            burst=admission.burst,
            horizon_s=admission.horizon_ms / 1000,
            priority_share=admission.priority_share,
        )
        self._kept_secrets = KeptSecrets(settings.nats.data_dir)
        self._keyring = self._kept_secrets.load(
            [secret.get_secret_value().encode() for secret in admission.ticket_secrets]
        )
        self._office = NodeTicketOffice(
            self._keyring.secrets,
            clock=clock,
            ahead_max_s=2 * calendar_settings.horizon_s + _AHEAD_SLACK_S,
        )
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
        self._membership: Membership
        if settings.cluster.redis_url is None:
            self._membership = LoneNode(calendar_settings, rate_per_s=admission.rate_per_s, now=now)
        else:
            self._membership = FleetNode(
                settings.cluster,
                calendar_settings,
                node=node,
                rate_per_s=admission.rate_per_s,
                clock=clock,
                local=self._local,
                keyring=self._keyring,
                revocations=self.revocations,
                fleet=fleet,
                fences=self._fences,
                hooks=MemberHooks(on_calendar=self._pump, on_secrets=self._rotate),
                rng=rng,
            )
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

    def _pump(self) -> None:
        """R has changed, or there are new slots."""
        self._desk.set_rate(self.calendar.rate_per_s, self._local())
        if self._gate is not None:
            self._gate.pump()

    def _rotate(self) -> None:
        """The secrets have changed, or which of them signs."""
        self._office.rotate(self._keyring.secrets)
        self._kept_secrets.keep(self._keyring)

    # SessionWatch

    def next_fence(self) -> int:
        return self._fences.next()

    def established(self, key: DeviceKey, fence: int) -> None:
        self._membership.arrived(key, fence)

    def ended(self, key: DeviceKey, fence: int) -> None:
        self._membership.departed(key, fence)

    # Running

    async def open(self) -> None:
        """Meet the fleet, before the first knock.

        Raises:
            RedisRefused: a password, a right or a certificate is wrong.
            OSError: the file of revocations cannot be read.
        """
        self.revocations.load()
        await self._membership.open()

    def open_gate(
        self, device: DeviceContext, *, connections_max: int, anteroom: Anteroom
    ) -> DeviceGate:
        """The gate of the device listener.

        Args:
            device: what all devices share.
            connections_max: devices this node has descriptors for.
            anteroom: for those who have not said who they are.
        """
        admission = self._settings.admission
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
                connections_max=connections_max,
                anteroom=anteroom,
                known_within_s=admission.resume_within_ms / 1000,
                clock=self._local,
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
        yield from self._membership.work()

    async def close(self) -> None:
        await self._hold.close()
        await self.revocations.close()
        await self._membership.close()

    @property
    def calendar(self) -> Calendar:
        return self._membership.calendar

    @property
    def peers(self) -> int:
        """Other nodes that could take this one's devices."""
        return self._membership.peers

    async def slot_elsewhere(self, session: DeviceHandler) -> tuple[int, str]:
        """A slot for a device that must leave: milliseconds from now, and its ticket."""
        tenant, device = session.key
        for _ in range(_RESERVE_TRIES):
            if self.calendar.ready(self._local()):
                break
            await asyncio.sleep(self._settings.cluster.lease_ms / 1000)
        now = self._local()
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
            now = self._local()
            before = self.controller.rate_per_s
            rate_per_s = self.controller.observe(signals, now)
            if rate_per_s < before:
                _log.warning(
                    "admission_slowed",
                    rate_per_s=round(rate_per_s, 1),
                    limited_by=self.controller.limited_by,
                )
            self._membership.propose(rate_per_s)
            self._desk.set_rate(self.calendar.rate_per_s, now)

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
        now = self._local()
        return {
            "rate_per_s": round(self.calendar.rate_per_s, 1),
            "limited_by": self.controller.limited_by,
            "held": self._desk.held,
            "lead_s": round(self._desk.lead_s(now), 3),
            "parked": self._desk.parked,
            "revoked": len(self.revocations.facts.in_force()),
            "revocations_pending": self.revocations.pending,
            **self._membership.status(),
        }

    def _register_gauges(self, metrics: Metrics) -> None:
        gauge, local = metrics.gauge, self._local
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
            lambda: self._desk.lead_s(local()),
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
            lambda: self._gate.herd.value(local()) if self._gate is not None else 0.0,
        )
        self._membership.register_gauges(metrics)
