"""The gate: order of work on a knock, from what costs least to what costs most.

    address limit -> draining, full -> known credential, else verify within the budget -> revoked
    -> device limit -> the admission desk

The gate decides on petitions and knows no protocol of devices: it admits an identity, and the
connection makes the handler.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from time import perf_counter

from gateway.admission.budget import VerificationBudget
from gateway.admission.credential import CredentialVerifier, Identity, claimed_holder
from gateway.admission.desk import AdmissionDesk
from gateway.admission.errors import CredentialError, TicketError
from gateway.admission.gcra import KeyedLimiter
from gateway.admission.herd import HerdIndex
from gateway.admission.outcome import Claim, Outcome, Refuse
from gateway.admission.revocation import RevocationList
from gateway.admission.ticket import TicketOffice
from gateway.edge.arrivals import Waiting
from gateway.edge.errors import Refusal
from gateway.edge.fleet import Fleet
from gateway.edge.memory import DeviceMemory
from gateway.edge.opening.anteroom import Anteroom
from gateway.edge.opening.petition import Petition, credential_refused
from gateway.edge.opening.refusal import come_back, hint_ms
from gateway.edge.ports import Counted, Visitor


@dataclass(frozen=True, slots=True)
class GateContext:
    """The gate's collaborators. `clock` is this node's own, in seconds."""

    verifier: CredentialVerifier
    revocations: RevocationList
    fleet: Fleet
    memory: DeviceMemory
    desk: AdmissionDesk[Waiting]
    office: TicketOffice
    budget: VerificationBudget
    device_knocks: KeyedLimiter
    address_knocks: KeyedLimiter
    connections_max: int
    """Devices, and those that wait for a slot; anonymous connections have room of their own."""
    anteroom: Anteroom
    known_within_s: float
    clock: Callable[[], float]
    rng: random.Random
    loop: asyncio.AbstractEventLoop


class DeviceGate:
    """The gate of the device listener."""

    def __init__(self, context: GateContext) -> None:
        self._context = context
        self._connections: set[Counted] = set()
        self._anonymous: set[Counted] = set()
        """Those that have shown no credential yet."""
        self._waiting = context.memory.arrivals.waiting
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self.draining = False
        self.herd = HerdIndex()
        self.empty = asyncio.Event()
        """Set while there is no visitor and no open connection."""
        self.empty.set()

    def __len__(self) -> int:
        """Connections, open or on their way."""
        return len(self._connections)

    @property
    def open(self) -> bool:
        """Whether a device could be admitted: not in a drain, nor a hold, nor without room.

        Connections on their way count here, since they may all be admitted.
        """
        room = len(self._connections) < self._context.connections_max
        return room and not (self.draining or self._context.desk.held)

    def arrived(self, connection: Counted, *, anonymous: bool) -> None:
        self._connections.add(connection)
        self.empty.clear()
        if anonymous:
            self._anonymous.add(connection)
            self._context.anteroom.enter(connection)

    def left(self, connection: Counted) -> None:
        self._identified(connection)
        self._connections.discard(connection)
        if not self._connections:
            self.empty.set()

    def _identified(self, connection: Counted) -> None:
        if connection in self._anonymous:
            self._anonymous.remove(connection)
            self._context.anteroom.leave(connection)

    def abort_all(self) -> None:
        """Drop every connection at once."""
        for connection in list(self._connections):
            connection.abort("stopped")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def hung_up(self, visitor: Visitor) -> None:
        waiting = self._waiting.pop(visitor, None)
        if waiting is not None:
            self._context.desk.left(waiting, self._context.clock())

    def decide(
        self, petition: Petition, address: str, visitor: Visitor
    ) -> Identity | Refuse | None:
        """Decide on a petition: see `ports.Gate`."""
        context = self._context
        now = context.clock()
        self.herd.arrived(now)
        wait_s = context.address_knocks.wait_s(address, now)
        if wait_s:
            raise self._unknown(petition, _too_many("address_rate", wait_s), now)
        if self.draining:
            raise self._unknown(petition, self._come_back("draining"), now)
        if len(self._connections) - len(self._anonymous) >= context.connections_max:
            raise self._unknown(petition, self._come_back("capacity"), now)
        identity = self._identify(petition, now)
        revocations = context.revocations
        if revocations and revocations.revoked(identity):
            context.memory.refused(identity.holder, (now, "revoked", "", 0.0))
            raise Refusal(HTTPStatus.FORBIDDEN, "revoked")
        wait_s = context.device_knocks.wait_s(identity.holder, now)
        if wait_s:
            context.memory.knocked_too_often(identity.holder, (now, "device_rate", "", wait_s))
            raise _too_many("device_rate", wait_s)
        claim = Claim(
            tenant=identity.tenant,
            group=identity.group,
            holder=identity.holder,
            urgent=identity.urgent,
            known=context.fleet.known(identity.key, context.known_within_s),
            ticket=petition.ticket,
        )
        waiting = Waiting(visitor, identity)
        outcome = context.desk.knock(claim, waiting, now)
        self._identified(visitor)
        if outcome is None:
            self._waiting[visitor] = waiting
            self._arm(now)
            return None
        if type(outcome) is Refuse:
            event = (now, "admission", outcome.reason, outcome.retry_s)
            context.memory.refused(identity.holder, event)
            return outcome
        return identity

    def pump(self) -> None:
        """Answer each visitor whose turn has come: on our timer, or when there are new slots."""
        now = self._context.clock()
        self._deliver(self._context.desk.poll(now))
        self._arm(now)

    def hold(self) -> None:
        """Admit no device, and refuse those that wait."""
        self._deliver(self._context.desk.hold(self._context.clock()))

    def drain(self) -> None:
        """Admit nobody any more, and refuse those that wait: their turn may never come here.

        A slot that one of them was promised stands, on any node.
        """
        self.draining = True
        now = self._context.clock()
        for visitor, waiting in list(self._waiting.items()):
            self.hung_up(visitor)
            self._context.memory.refused(
                waiting.identity.holder, (now, "admission", "draining", 0.0)
            )
            visitor.refused(self._come_back("draining"))

    def _deliver(self, outcomes: list[tuple[Waiting, Outcome]]) -> None:
        memory, now = self._context.memory, self._context.clock()
        for waiting, outcome in outcomes:
            visitor = waiting.visitor
            if self._waiting.pop(visitor, None) is None:
                continue  # it hung up while the others were answered
            if isinstance(outcome, Refuse):
                event = (now, "admission", outcome.reason, outcome.retry_s)
                memory.refused(waiting.identity.holder, event)
                visitor.refused(come_back(outcome))
            else:
                visitor.admitted(waiting.identity)

    def _arm(self, now: float) -> None:
        """Set the timer to the moment at which the next visitor in the lot may be answered."""
        due = self._context.desk.next_poll_at()
        if due is None or (self._timer is not None and self._timer_at <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        self._timer = self._context.loop.call_later(max(0.0, due - now), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.pump()

    def _identify(self, petition: Petition, now: float) -> Identity:
        context = self._context
        verifier = context.verifier
        try:
            identity = verifier.recall(petition.token)
            if identity is not None:
                return identity
            if not self._may_verify(petition, now):
                raise self._unknown(petition, self._come_back("overload"), now)
            began = perf_counter()
            try:
                return verifier.verify(petition.token)
            finally:
                context.budget.spend(perf_counter() - began, now)
        except CredentialError as exc:
            raise self._unknown(petition, credential_refused(exc), now) from None

    def _unknown(self, petition: Petition, refusal: Refusal, now: float) -> Refusal:
        """Remember the refusal of a knock whose credential is not verified."""
        retry_s = (refusal.retry_ms or 0) / 1000
        event = (now, refusal.error, refusal.reason, retry_s)
        self._context.memory.refused_claim(petition.token, event)
        return refusal

    def _may_verify(self, petition: Petition, now: float) -> bool:
        budget = self._context.budget
        if budget.allows(now, has_ticket=False):
            return True
        holder = claimed_holder(petition.token) if petition.ticket else None
        if holder is None or not budget.allows(now, has_ticket=True):
            return False
        try:
            self._context.office.check(petition.ticket, holder=holder, now=now)
        except TicketError:
            return False
        return True

    def _come_back(self, reason: str) -> Refusal:
        """A 503 with a random time, over which the whole fleet can be answered."""
        spread_ms = self._context.fleet.first_retry_ms
        retry_ms = 1_000 + self._context.rng.randrange(spread_ms + 1)
        return Refusal(
            HTTPStatus.SERVICE_UNAVAILABLE, "admission", reason=reason, retry_ms=retry_ms
        )


def _too_many(error: str, wait_s: float) -> Refusal:
    return Refusal(HTTPStatus.TOO_MANY_REQUESTS, error, retry_ms=hint_ms(wait_s))
