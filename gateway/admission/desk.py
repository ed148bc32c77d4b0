"""The admission desk: who comes in now, who waits a moment, who is sent home with a slot.

    knock --> ticket in its window ------> honoured: in at once, or first in the lot
          --> ticket too early ----------> the same slot again (or the lot, if it is a moment away)
          --> ticket late ---------------> walk-in with priority, once; worth nothing after `late_s`
          --> no ticket, slot promised --> as with the ticket, if this node remembers
          --> in the lot already --------> the newer connection takes the older one's place
          --> walk-in --> slot free -----> in
                      --> slot vacated --> in
                      --> a moment away -> the lot
                      --> later ---------> refused, with a ticket for that slot
                      --> past horizon --> refused, with a jittered time

Two limits work together. The calendar says who is promised which moment; the meter counts who is
really let in, so that admissions in any window of `w` seconds stay within R*w + burst whoever
comes late. Credit on the meter that stays means that slots were not claimed: it goes to whoever
knocks. A promise is kept even over the meter once its holder has waited
`patience_s`. A device has one slot, whatever it shows (`promises.py`).

Pure: all times are seconds of one clock (the fleet's) and are passed in; randomness is injected.
The gateway and the storm simulator run this very class.
"""

import random
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from msgspec import Struct

from gateway.admission.calendar import Calendar
from gateway.admission.errors import TicketError
from gateway.admission.fairness import FairShares
from gateway.admission.gcra import Gcra
from gateway.admission.lot import Parked, ParkingLot, Rank
from gateway.admission.observer import AdmissionObserver
from gateway.admission.promises import Promises
from gateway.admission.ticket import TicketOffice

W = TypeVar("W")


@dataclass(frozen=True, slots=True)
class DeskSettings:
    """Times in seconds, costs and burst in admissions."""

    burst: float = 100.0
    park_s: float = 1.0
    patience_s: float = 5.0
    window_s: float = 10.0
    late_s: float = 300.0
    """How long after its window a ticket still gives priority."""
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
    """A slot somebody holds, and how it ranks."""

    slot_at: float
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
        self._promises = Promises(
            entries_max=settings.promises_max, keep_s=settings.window_s + settings.late_s
        )
        self._undecided: OrderedDict[W, tuple[Claim, bool]] = OrderedDict()
        self._places: dict[W, Parked[W]] = {}
        self._place_of: dict[bytes, Parked[W]] = {}
        self._displaced: list[tuple[W, Outcome]] = []
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
            return self._refuse_overload(self._ticket_kept(claim, now))
        place = self._place_of.get(claim.holder)
        if place is not None:
            self._take_over(place, waiter)
            return None
        promise = self._promise_of(claim, now)
        if promise is None:
            return self._walk_in(claim, waiter, now, late=False)
        return self._keep(claim, waiter, now, promise)

    def poll(self, now: float) -> list[tuple[W, Outcome]]:
        """Whoever's waiting is over. Call it at `next_poll_at`, or more often."""
        outcomes, self._displaced = self._displaced, []
        while self._undecided and self._calendar.ready(now):
            waiter, (claim, late) = self._undecided.popitem(last=False)
            outcome = self._decide_at_last(claim, waiter, now, late=late)
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
        """When somebody's waiting may be over; None if nobody is there.

        Those who wait for the calendar do not count: whoever fills it polls.
        """
        if self._displaced:
            return 0.0
        due = self._lot.next_due()
        if due is None:
            return None
        return min(max(due, self._meter.ready_at()), self._lot.next_latest())

    def left(self, waiter: W, now: float) -> None:
        """A waiter hung up. It gets no outcome from here on."""
        if self._undecided.pop(waiter, None) is not None:
            return
        place = self._places.pop(waiter, None)
        if place is not None:
            self._lot.leave(place)
            del self._place_of[place.holder]
            # It was cut off before it was let in: the promise stands.
            self._promises.restore(place.holder, place.due, now)

    def set_rate(self, rate_per_s: float, now: float) -> None:
        """R changed. Promises keep their slots; new ones follow it, and so does the meter."""
        self._meter.set_rate(rate_per_s, now)

    def hold(self, reason: str, now: float) -> list[tuple[W, Outcome]]:
        """Admit nobody until `release`: the stream cannot take more.

        Returns:
            Everybody who waited, refused; who had a promise keeps it.
        """
        self._held = reason
        outcomes, self._displaced = self._displaced, []
        for place in self._lot.clear():
            self._promises.restore(place.holder, place.due, now)
            ticket = self._office.issue(place.due, holder=place.holder, now=now)
            outcomes.append((place.waiter, self._refuse_overload(ticket)))
        self._places.clear()
        self._place_of.clear()
        undecided = list(self._undecided)
        self._undecided.clear()
        return outcomes + [(waiter, self._refuse_overload("")) for waiter in undecided]

    def release(self) -> None:
        self._held = ""

    @property
    def held(self) -> bool:
        return bool(self._held)

    # Promises

    def _promise_of(self, claim: Claim, now: float) -> _Promise | None:
        """The slot this device was promised, if it was: by its ticket, or as this node remembers.

        A client that ignores tickets and comes back on time is not to starve; one that shows an
        old ticket has the slot it was promised since.
        """
        remembered = self._promises.slot_of(claim.holder)
        if claim.ticket:
            shown = self._shown(claim, now)
            window_ends = now - self._settings.window_s
            if shown is not None and (shown.slot_at >= window_ends or remembered is None):
                return shown
        return None if remembered is None else _Promise(remembered, Rank.TICKET)

    def _shown(self, claim: Claim, now: float) -> _Promise | None:
        """What the ticket of a claim promises, unless it is worth nothing."""
        try:
            ticket = self._office.check(claim.ticket, holder=claim.holder, now=now)
        except TicketError as exc:
            self._observer.ticket_invalid(exc.reason)
            return None
        if self._promises.is_spent(claim.holder, ticket.slot_at):
            self._observer.ticket_replayed()
            return None
        return _Promise(ticket.slot_at, Rank.PRIORITY if ticket.priority else Rank.TICKET)

    def _ticket_kept(self, claim: Claim, now: float) -> str:
        """A ticket for the slot a device holds, past its window too; empty if it has none.

        Never the text that the device sent: a ticket counts only once it has been checked.
        """
        promise = self._promise_of(claim, now)
        if promise is None or self._too_late(promise, now):
            return ""
        return self._ticket(claim, promise, now)

    def _keep(self, claim: Claim, waiter: W, now: float, promise: _Promise) -> Outcome | None:
        """Do what was promised, or what is left of it."""
        if now < promise.slot_at:
            return self._early(claim, waiter, now, promise)
        if now <= promise.slot_at + self._settings.window_s:
            return self._honour(claim, waiter, now, promise)
        self._observer.ticket_late(now - promise.slot_at)
        # Spent, so that it gives priority once; the slot it leads to is the device's own from now.
        self._promises.spend(claim.holder, promise.slot_at, now)
        return self._walk_in(claim, waiter, now, late=not self._too_late(promise, now))

    def _too_late(self, promise: _Promise, now: float) -> bool:
        return now > promise.slot_at + self._settings.window_s + self._settings.late_s

    def _early(self, claim: Claim, waiter: W, now: float, promise: _Promise) -> Outcome | None:
        slot_at = promise.slot_at
        wait_s = slot_at - now
        if wait_s <= self._settings.park_s and self._lot.room(promise.rank):
            self._promises.spend(claim.holder, slot_at, now)
            self._park(claim, waiter, promise.rank, slot_at, now)
            return None
        self._observer.ticket_early(wait_s)
        if self._promises.slot_of(claim.holder) != slot_at:
            self._promises.hold(claim.holder, slot_at, now)
        return Refuse("rate", wait_s, self._ticket(claim, promise, now))

    def _honour(self, claim: Claim, waiter: W, now: float, promise: _Promise) -> Outcome | None:
        self._observer.ticket_honoured(now - promise.slot_at)
        self._promises.spend(claim.holder, promise.slot_at, now)
        cost = self._cost(claim)
        if not self._meter.conforms(now, cost):
            if self._lot.room(promise.rank):
                self._park(claim, waiter, promise.rank, promise.slot_at, now)
                return None
            self._observer.over_meter()
        self._count(now, cost)
        return ADMIT

    def _ticket(self, claim: Claim, promise: _Promise, now: float) -> str:
        priority = promise.rank is Rank.PRIORITY
        return self._office.issue(promise.slot_at, holder=claim.holder, now=now, priority=priority)

    def _take_over(self, place: Parked[W], waiter: W) -> None:
        """A device that is in the lot knocks again: its newer connection waits there now."""
        older = place.waiter
        del self._places[older]
        place.waiter = waiter
        self._places[waiter] = place
        self._displaced.append((older, Refuse("rate", self._settings.patience_s)))

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
            self._undecided[waiter] = (claim, late)
            return None
        return self._place(claim, waiter, now, late=late)

    def _decide_at_last(self, claim: Claim, waiter: W, now: float, *, late: bool) -> Outcome | None:
        """For who waited for the calendar: it may have a slot, from another connection, by now."""
        place = self._place_of.get(claim.holder)
        if place is not None:
            self._take_over(place, waiter)
            return None
        slot_at = self._promises.slot_of(claim.holder)
        if slot_at is not None:
            return self._keep(claim, waiter, now, _Promise(slot_at, Rank.TICKET))
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
            self._park(claim, waiter, rank, slot_at, now)
            return None
        slot_at = max(slot_at, now)
        self._promises.hold(claim.holder, slot_at, now)
        self._observer.ticket_issued(slot_at - now)
        ticket = self._office.issue(slot_at, holder=claim.holder, now=now, priority=priority)
        return Refuse("rate", slot_at - now, ticket)

    def _nobody_before(self, rank: Rank, now: float) -> bool:
        front = self._lot.front(now)
        return front is None or front.rank > rank

    def _park(self, claim: Claim, waiter: W, rank: Rank, due: float, now: float) -> None:
        latest = max(due, now) + self._settings.patience_s
        place = Parked(waiter, rank, due, latest, self._cost(claim), claim.holder)
        self._lot.park(place)
        self._places[waiter] = self._place_of[claim.holder] = place
        self._observer.parked(rank.name.lower())

    def _let_in(self, place: Parked[W], now: float) -> W:
        self._count(now, place.cost)
        waiter = self._lot.take(place)
        del self._places[waiter]
        del self._place_of[place.holder]
        return waiter

    def _count(self, now: float, cost: float) -> None:
        self._meter.take(now, cost)
        self._calendar.admitted(cost)

    def _cost(self, claim: Claim) -> float:
        return self._settings.resume_cost if claim.known else self._settings.cold_cost

    def _refuse_overload(self, ticket: str) -> Refuse:
        # Its slot may pass meanwhile; a ticket still gives priority after its window.
        retry_s = self._settings.overload_retry_s * self._rng.uniform(0.5, 1.5)
        return Refuse("overload", retry_s, ticket)
