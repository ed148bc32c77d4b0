"""The admission desk: who comes in now, who waits a moment, who is sent home with a slot.

    knock --> ticket in its window ------> honoured: in at once, or first in the lot
          --> ticket too early ----------> the same slot again (or the lot, if it is a moment away)
          --> ticket too late -----------> walk-in with priority
          --> no ticket, slot promised --> as with the ticket, if this node remembers
          --> walk-in --> slot free -----> in
                      --> slot vacated --> in
                      --> a moment away -> the lot
                      --> later ---------> refused, with a ticket for that slot
                      --> past horizon --> refused, with a jittered time

Two limits work together. The calendar says who is promised which moment; the meter counts who is
really let in, so that admissions in any window of `w` seconds stay within R*w + burst whoever
comes late. Credit on the meter that stays means that slots were not claimed: it goes to whoever
knocks. A promise is kept even over the meter once its holder has waited
`patience_s`.

Pure: all times are seconds of one clock (the fleet's) and are passed in; randomness is injected.
The gateway and the storm simulator run this very class.
"""

import random
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from msgspec import Struct

from gateway.admission.calendar import Calendar
from gateway.admission.errors import TicketError
from gateway.admission.fairness import FairShares
from gateway.admission.gcra import Gcra
from gateway.admission.lot import Parked, ParkingLot, Rank, Waiter
from gateway.admission.observer import AdmissionObserver
from gateway.admission.ticket import TicketOffice

W = TypeVar("W", bound=Waiter)


@dataclass(frozen=True, slots=True)
class DeskSettings:
    """Times in seconds, costs and burst in admissions."""

    burst: float = 100.0
    park_s: float = 1.0
    patience_s: float = 5.0
    window_s: float = 10.0
    lot_places: int = 4_096
    cold_cost: float = 1.0
    resume_cost: float = 0.5
    horizon_s: float = 900.0
    overload_retry_s: float = 10.0
    promises_max: int = 200_000


class Claim(Struct, frozen=True, gc=False):
    """Who knocks. `holder` is the hash of tenant and device; `known` was here a moment ago.

    A msgspec Struct, as all that is made once a knock: a tenth of a dataclass's cost.
    """

    tenant: str
    group: str
    holder: bytes
    urgent: bool = False
    known: bool = False
    ticket: str = ""


class Admit(Struct, frozen=True, gc=False):
    """Come in."""


class Refuse(Struct, frozen=True, gc=False):
    """Come back in `retry_s`, a floor. `reason` is rate or overload."""

    reason: str
    retry_s: float
    ticket: str = ""


Outcome = Admit | Refuse
ADMIT: Final = Admit()


class _Promise(Struct, frozen=True, gc=False):
    """A slot somebody holds. `mac` is of the ticket shown, which makes its redemption unique."""

    slot_at: float
    mac: bytes
    rank: Rank


class AdmissionDesk(Generic[W]):
    """The desk of one node. A `W` waits for an outcome: a connection, a simulated device."""

    def __init__(
        self,
        settings: DeskSettings,
        *,
        calendar: Calendar,
        office: TicketOffice,
        observer: AdmissionObserver,
        rng: random.Random,
        now: float,
    ) -> None:
        self._settings = settings
        self._calendar = calendar
        self._office = office
        self._observer = observer
        self._rng = rng
        self._meter = Gcra(rate_per_s=calendar.rate_per_s, burst=settings.burst, now=now)
        self._shares = FairShares()
        self._lot: ParkingLot[W] = ParkingLot(places=settings.lot_places)
        self._undecided: deque[tuple[W, Claim, bool]] = deque()
        self._promised: OrderedDict[bytes, float] = OrderedDict()
        self._redeemed: OrderedDict[bytes, float] = OrderedDict()
        self._stakes: dict[W, tuple[bytes, float, bytes]] = {}
        self._held = ""

    @property
    def parked(self) -> int:
        return len(self._lot)

    @property
    def undecided(self) -> int:
        """Knocks that wait for the calendar to have slots at hand."""
        return len(self._undecided)

    def lead_s(self, now: float) -> float:
        """Seconds until the next free slot: the predicted drain time."""
        return self._calendar.lead_s(now)

    def knock(self, claim: Claim, waiter: W, now: float) -> Outcome | None:
        """Decide on a knock.

        Returns:
            The outcome, or None if `waiter` waits for one; `poll` brings it.
        """
        if self._held:
            return self._refuse_overload(claim.ticket)
        promise = self._promise_of(claim, now)
        if promise is None:
            return self._walk_in(claim, waiter, now, late=False)
        slot_at = promise.slot_at
        if now < slot_at:
            return self._early(claim, waiter, now, promise)
        if now > slot_at + self._settings.window_s:
            self._observer.ticket_late(now - slot_at)
            self._promised.pop(claim.holder, None)
            return self._walk_in(claim, waiter, now, late=True)
        return self._honour(claim, waiter, now, promise)

    def poll(self, now: float) -> list[tuple[W, Outcome]]:
        """Whoever's waiting is over. Call it at `next_poll_at`, or more often."""
        outcomes: list[tuple[W, Outcome]] = []
        while self._undecided and self._calendar.ready(now):
            waiter, claim, late = self._undecided.popleft()
            if waiter.waiting:
                outcome = self._place(claim, waiter, now, late=late)
                if outcome is not None:
                    outcomes.append((waiter, outcome))
        lot, meter = self._lot, self._meter
        while (place := lot.front(now)) is not None and meter.conforms(now, place.cost):
            outcomes.append((self._let_in(place, now), ADMIT))
        while (place := lot.overdue(now)) is not None:
            self._observer.over_meter()
            outcomes.append((self._let_in(place, now), ADMIT))
        return outcomes

    def next_poll_at(self) -> float | None:
        """When somebody in the lot may go; None if nobody is there."""
        due = self._lot.next_due()
        if due is None:
            return None
        return min(max(due, self._meter.ready_at()), self._lot.next_latest())

    def left(self, waiter: W) -> None:
        """A waiter hung up; it must say so itself through `waiting` before this."""
        stake = self._stakes.pop(waiter, None)
        if stake is None:
            return  # it waited for the calendar, not in the lot
        self._lot.left()
        holder, slot_at, mac = stake
        # It was cut off before it was let in: the promise stands.
        self._redeemed.pop(mac, None)
        if holder:
            self._promised[holder] = slot_at

    def set_rate(self, rate_per_s: float, now: float) -> None:
        """R changed. Promises keep their slots; new ones follow it, and so does the meter."""
        self._meter.set_rate(rate_per_s, now)

    def hold(self, reason: str, now: float) -> list[tuple[W, Outcome]]:
        """Admit nobody until `release`: the stream cannot take more.

        Returns:
            Everybody who waited, refused; who had a promise keeps it.
        """
        self._held = reason
        outcomes: list[tuple[W, Outcome]] = []
        for waiter in self._lot.clear():
            holder, slot_at, _mac = self._stakes[waiter]
            self._promised[holder] = slot_at
            ticket = self._office.issue(slot_at, holder=holder, now=now)
            outcomes.append((waiter, self._refuse_overload(ticket)))
        self._stakes.clear()
        undecided = [entry[0] for entry in self._undecided if entry[0].waiting]
        self._undecided.clear()
        return outcomes + [(waiter, self._refuse_overload("")) for waiter in undecided]

    def release(self) -> None:
        self._held = ""

    @property
    def held(self) -> bool:
        return bool(self._held)

    # Promises

    def _promise_of(self, claim: Claim, now: float) -> _Promise | None:
        """The slot this device was promised, if it was."""
        if claim.ticket:
            try:
                ticket = self._office.check(claim.ticket, holder=claim.holder, now=now)
            except TicketError as exc:
                self._observer.ticket_invalid(exc.reason)
            else:
                if ticket.mac not in self._redeemed:
                    rank = Rank.PRIORITY if ticket.priority else Rank.TICKET
                    return _Promise(ticket.slot_at, ticket.mac, rank)
                self._observer.ticket_replayed()
                return None
        # A client that ignores tickets and comes back on time is not to starve.
        remembered = self._promised.get(claim.holder)
        return None if remembered is None else _Promise(remembered, b"", Rank.TICKET)

    def _early(self, claim: Claim, waiter: W, now: float, promise: _Promise) -> Outcome | None:
        slot_at = promise.slot_at
        wait_s = slot_at - now
        if wait_s <= self._settings.park_s and self._lot.room(promise.rank):
            self._redeem(claim, promise)
            self._park(claim, waiter, promise.rank, slot_at, now, promise.mac)
            return None
        self._observer.ticket_early(wait_s)
        ticket = claim.ticket or self._office.issue(slot_at, holder=claim.holder, now=now)
        return Refuse("rate", wait_s, ticket)

    def _honour(self, claim: Claim, waiter: W, now: float, promise: _Promise) -> Outcome | None:
        self._observer.ticket_honoured(now - promise.slot_at)
        self._redeem(claim, promise)
        cost = self._cost(claim)
        if not self._meter.conforms(now, cost):
            if self._lot.room(promise.rank):
                self._park(claim, waiter, promise.rank, promise.slot_at, now, promise.mac)
                return None
            self._observer.over_meter()
        self._count(now, cost)
        return ADMIT

    def _redeem(self, claim: Claim, promise: _Promise) -> None:
        self._promised.pop(claim.holder, None)
        if not promise.mac:
            return
        redeemed = self._redeemed
        redeemed[promise.mac] = promise.slot_at
        if len(redeemed) > self._settings.promises_max:
            redeemed.popitem(last=False)

    # Walk-ins

    def _walk_in(self, claim: Claim, waiter: W, now: float, *, late: bool) -> Outcome | None:
        meter, calendar = self._meter, self._calendar
        cost = self._cost(claim)
        if self._lot.front(now) is None and calendar.take_vacated(now, cost, meter.credit(now)):
            self._shares.served(claim.tenant, claim.group, cost, now)
            meter.take(now, cost)
            self._observer.slot_given_back()
            return ADMIT
        if not calendar.ready(now):
            self._undecided.append((waiter, claim, late))
            return None
        return self._place(claim, waiter, now, late=late)

    def _place(self, claim: Claim, waiter: W, now: float, *, late: bool) -> Outcome | None:
        """Give a walk-in the next free slot."""
        settings, meter = self._settings, self._meter
        cost = self._cost(claim)
        priority = claim.urgent or late or self._shares.underserved(claim.tenant, claim.group, now)
        slot_at = self._calendar.reserve(now, cost, priority=priority)
        if slot_at is None:
            self._observer.past_horizon()
            retry_s = settings.horizon_s * self._rng.uniform(0.5, 1.0)
            return Refuse("rate", retry_s)
        self._shares.served(claim.tenant, claim.group, cost, now)
        rank = Rank.PRIORITY if priority else Rank.WALK_IN
        if slot_at <= now and meter.conforms(now, cost) and self._nobody_before(rank, now):
            self._count(now, cost)
            return ADMIT
        wait_s = max(slot_at, meter.ready_at(cost)) - now
        if wait_s <= settings.park_s and self._lot.room(rank):
            self._park(claim, waiter, rank, slot_at, now, b"")
            return None
        slot_at = max(slot_at, now)
        self._promised[claim.holder] = slot_at
        if len(self._promised) > settings.promises_max:
            self._promised.popitem(last=False)
        self._observer.ticket_issued(slot_at - now)
        ticket = self._office.issue(slot_at, holder=claim.holder, now=now, priority=priority)
        return Refuse("rate", slot_at - now, ticket)

    def _nobody_before(self, rank: Rank, now: float) -> bool:
        front = self._lot.front(now)
        return front is None or front.rank > rank

    def _park(
        self, claim: Claim, waiter: W, rank: Rank, due: float, now: float, mac: bytes
    ) -> None:
        latest = max(due, now) + self._settings.patience_s
        self._lot.park(Parked(waiter, rank, due, latest, self._cost(claim)))
        self._stakes[waiter] = (claim.holder, due, mac)
        self._observer.parked(rank.name.lower())

    def _let_in(self, place: Parked[W], now: float) -> W:
        self._count(now, place.cost)
        waiter = self._lot.take(place)
        del self._stakes[waiter]
        return waiter

    def _count(self, now: float, cost: float) -> None:
        self._meter.take(now, cost)
        self._calendar.admitted(cost)

    def _cost(self, claim: Claim) -> float:
        return self._settings.resume_cost if claim.known else self._settings.cold_cost

    def _refuse_overload(self, ticket: str) -> Refuse:
        # A ticket is handed back: past its window it still gives priority.
        retry_s = self._settings.overload_retry_s * self._rng.uniform(0.5, 1.5)
        return Refuse("overload", retry_s, ticket)
