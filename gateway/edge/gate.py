"""The gate: order of work on a knock, from what costs least to what costs most.

    address limit -> draining, full -> known credential, else verify within the budget -> revoked
    -> device limit -> the admission desk

Both ways in end here: the raw scan of `knock.py` with a petition it read itself, and the full
parser of `connection.py`, which is the judge. A connection that was let in on the scan's word is
let in for good only if the full parser reads the same petition.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from time import perf_counter
from typing import Final, cast

from gateway.admission.budget import VerificationBudget
from gateway.admission.credential import Identity, claimed_holder
from gateway.admission.desk import AdmissionDesk
from gateway.admission.errors import CredentialError, TicketError
from gateway.admission.gcra import KeyedLimiter
from gateway.admission.herd import HerdIndex
from gateway.admission.outcome import Claim, Outcome, Refuse
from gateway.admission.ticket import TicketOffice
from gateway.edge.anteroom import Anteroom
from gateway.edge.device import DeviceContext, DeviceHandler
from gateway.edge.errors import Refusal
from gateway.edge.handshake import Request
from gateway.edge.head import Petition
from gateway.edge.knock import Granted, Visitor
from gateway.edge.refusal import come_back, hint_ms
from tidegate.wire import frames

_BEARER: Final = "bearer "


class Pending:
    """A visitor whose outcome the desk still owes: it is told, or it says `hung_up`."""

    __slots__ = ("identity", "visitor")

    def __init__(self, visitor: Visitor, identity: Identity) -> None:
        self.visitor = visitor
        self.identity = identity


@dataclass(slots=True)
class GateContext:
    """The gate's collaborators. `clock` is the fleet's, in seconds."""

    device: DeviceContext
    desk: AdmissionDesk[Pending]
    office: TicketOffice
    budget: VerificationBudget
    device_knocks: KeyedLimiter
    address_knocks: KeyedLimiter
    connections_max: int
    """Devices, and those that wait for a slot; the anonymous have their own room."""
    anteroom: Anteroom
    known_within_s: float
    clock: Callable[[], float]
    rng: random.Random
    loop: asyncio.AbstractEventLoop


class DeviceGate:
    """The gate of the device listener."""

    def __init__(self, context: GateContext) -> None:
        self._context = context
        self._visitors: set[Visitor] = set()
        self._strangers: set[Visitor] = set()
        """Visitors that have not said who they are."""
        self._pending: dict[Visitor, Pending] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self.draining = False
        self.herd = HerdIndex()
        self.empty = asyncio.Event()
        """Set while there is no connection."""
        self.empty.set()

    def __len__(self) -> int:
        """Connections, admitted or on their way."""
        return len(self._visitors)

    @property
    def desk(self) -> AdmissionDesk[Pending]:
        return self._context.desk

    def arrived(self, visitor: Visitor, *, anonymous: bool) -> None:
        self._visitors.add(visitor)
        self.empty.clear()
        if anonymous:
            self._strangers.add(visitor)
            self._context.anteroom.enter(visitor)

    def left(self, visitor: Visitor) -> None:
        self._known(visitor)
        self._visitors.discard(visitor)
        if not self._visitors:
            self.empty.set()

    def _known(self, visitor: Visitor) -> None:
        if visitor in self._strangers:
            self._strangers.remove(visitor)
            self._context.anteroom.leave(visitor)

    def abort_all(self) -> None:
        """Drop every connection at once."""
        for visitor in list(self._visitors):
            visitor.abort("stopped")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def hung_up(self, visitor: Visitor) -> None:
        pending = self._pending.pop(visitor, None)
        if pending is not None:
            self._context.desk.left(pending, self._context.clock())

    def admit(
        self, request: Request, address: str, visitor: Visitor, granted: Granted | None
    ) -> DeviceHandler | None:
        """Read a petition from a parsed request and decide on it.

        Raises:
            Refusal: with the status and error of the contract.
        """
        petition = petition_of(request)
        if granted is None:
            outcome = self.decide(petition, address, visitor)
            if isinstance(outcome, Refuse):
                raise come_back(outcome)
            return outcome
        if granted.petition != petition:
            detail = "the request can be read in two ways"
            raise Refusal(HTTPStatus.BAD_REQUEST, "bad_request", reason="ambiguous", detail=detail)
        return cast("DeviceHandler", granted.handler)

    def decide(
        self, petition: Petition, address: str, visitor: Visitor
    ) -> DeviceHandler | Refuse | None:
        """The handler of who is let in at once; None if `visitor` waits for an answer.

        Returns:
            `Refuse` for who is to come back in its slot.

        Raises:
            Refusal: it is not let in for another reason; with the contract's status and error.
        """
        context = self._context
        now = context.clock()
        self.herd.arrived(now)
        wait_s = context.address_knocks.wait_s(address, now)
        if wait_s:
            raise _too_many("address_rate", wait_s)
        if self.draining:
            raise self._come_back("draining")
        if len(self._visitors) - len(self._strangers) >= context.connections_max:
            raise self._come_back("capacity")
        identity = self._identify(petition, now)
        revocations = context.device.revocations
        if revocations and revocations.revoked(identity):
            raise Refusal(HTTPStatus.FORBIDDEN, "revoked")
        wait_s = context.device_knocks.wait_s(identity.holder, now)
        if wait_s:
            raise _too_many("device_rate", wait_s)
        claim = Claim(
            tenant=identity.tenant,
            group=identity.group,
            holder=identity.holder,
            urgent=identity.urgent,
            known=context.device.fleet.known(
                (identity.tenant, identity.device), context.known_within_s
            ),
            ticket=petition.ticket,
        )
        pending = Pending(visitor, identity)
        outcome = context.desk.knock(claim, pending, now)
        self._known(visitor)
        if outcome is None:
            self._pending[visitor] = pending
            self._arm(now)
            return None
        if type(outcome) is Refuse:
            return outcome
        return DeviceHandler(context.device, identity)

    def pump(self) -> None:
        """Let in whoever's turn it is. Called by our timer, and when the calendar has new slots."""
        now = self._context.clock()
        self._deliver(self._context.desk.poll(now))
        self._arm(now)

    def hold(self) -> None:
        """Admit no device, and refuse those that wait."""
        self._deliver(self._context.desk.hold(self._context.clock()))

    def _deliver(self, outcomes: list[tuple[Pending, Outcome]]) -> None:
        for pending, outcome in outcomes:
            visitor = pending.visitor
            if self._pending.pop(visitor, None) is None:
                continue  # it hung up while the others were told
            if isinstance(outcome, Refuse):
                visitor.refused(come_back(outcome))
            elif self.draining:
                visitor.refused(self._come_back("draining"))
            else:
                visitor.admitted(DeviceHandler(self._context.device, pending.identity))

    def _arm(self, now: float) -> None:
        """Have the timer run when the next in the lot may go."""
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
        verifier = context.device.verifier
        try:
            identity = verifier.recall(petition.token)
            if identity is not None:
                return identity
            if not self._may_verify(petition, now):
                raise self._come_back("overload")
            began = perf_counter()
            try:
                return verifier.verify(petition.token)
            finally:
                context.budget.spend(perf_counter() - began, now)
        except CredentialError as exc:
            raise Refusal(
                HTTPStatus.UNAUTHORIZED, "credential", reason=exc.reason, detail=str(exc)
            ) from None

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
        """At random over the time in which all of the fleet can be answered."""
        spread_ms = self._context.device.fleet.first_retry_ms
        retry_ms = 1_000 + self._context.rng.randrange(spread_ms + 1)
        return Refusal(
            HTTPStatus.SERVICE_UNAVAILABLE, "admission", reason=reason, retry_ms=retry_ms
        )


def _too_many(error: str, wait_s: float) -> Refusal:
    return Refusal(HTTPStatus.TOO_MANY_REQUESTS, error, retry_ms=hint_ms(wait_s))


def petition_of(request: Request) -> Petition:
    """What a handshake asks for.

    Raises:
        Refusal: its credential cannot be read.
    """
    try:
        return Petition(_token(request), _ticket(request))
    except CredentialError as exc:
        raise Refusal(
            HTTPStatus.UNAUTHORIZED, "credential", reason=exc.reason, detail=str(exc)
        ) from None


def _token(request: Request) -> str:
    """The credential: of the Authorization header, else of the `bearer.` subprotocol.

    Raises:
        CredentialError: there are several, or it is of another scheme.
    """
    shown = request.values("authorization")
    if len(shown) > 1:
        raise CredentialError("malformed", "several Authorization headers")
    if shown:
        if not shown[0][: len(_BEARER)].lower() == _BEARER:
            raise CredentialError("malformed", "Authorization is not Bearer")
        return shown[0][len(_BEARER) :].strip()
    tokens = _offered_after(frames.BEARER_SUBPROTOCOL_PREFIX, request)
    if len(tokens) > 1:
        raise CredentialError("malformed", "several bearer subprotocols")
    return tokens[0] if tokens else ""


def _ticket(request: Request) -> str:
    """The ticket: of the Tidegate-Ticket header, else of the `ticket.` subprotocol (browsers).

    Several tickets are as good as none.
    """
    shown = request.values(frames.TICKET_HEADER.lower())
    if not shown:
        shown = _offered_after(frames.TICKET_SUBPROTOCOL_PREFIX, request)
    return shown[0] if len(shown) == 1 else ""


def _offered_after(prefix: str, request: Request) -> list[str]:
    offered = request.elements("sec-websocket-protocol")
    return [name[len(prefix) :] for name in offered if name.startswith(prefix)]
