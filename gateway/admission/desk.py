"""The admission desk: decides whether a device is admitted, waits a moment, or is refused.

    knock --> in a hold ----------------> refused, with a ticket for a free slot (`hold.py`)
          --> ticket in its window -----> admitted, or first in the lot
          --> ticket too early ---------> the same slot again (or the lot, if the slot is near)
          --> ticket late --------------> walk-in with priority, once; worth nothing after `late_s`
          --> no ticket, slot promised -> as with the ticket, if this node remembers
          --> in the lot already -------> the newer connection takes the older one's place
          --> walk-in --> slot free ----> admitted
                      --> slot vacated -> admitted
                      --> slot is near -> the lot
                      --> slot later ---> refused, with a ticket for that slot
                      --> past horizon -> refused, with a jittered time

Two limits work together. The calendar promises slots. The meter counts admissions, so that in any
window of `w` seconds they stay within R*w + burst, however late devices use their slots. If the
meter's credit stays high, promised slots were not used: the desk gives them to the next knocks.
In a fleet the meter has this node's share of R and of the burst, and room that other nodes leave is
lent to those that need it (`Calendar.take_lent`).
A promise is kept even beyond the meter once its holder has waited `patience_s`. A device has one
slot, whatever it shows (`entitlement.py`).

Pure: callers pass the time, in seconds of local time (`clock.py`); randomness is injected. The
gateway and the storm simulator run this class.
"""

import random
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from gateway.admission.calendar import Calendar
from gateway.admission.entitlement import Entitlements, Promise
from gateway.admission.fairness import FairShares
from gateway.admission.gcra import Gcra
from gateway.admission.hold import Hold
from gateway.admission.lot import PRIORITY, WALK_IN, Parked, ParkingLot, Rank
from gateway.admission.observer import AdmissionObserver
from gateway.admission.outcome import ADMIT, Claim, Outcome, Refuse
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


class AdmissionDesk(Generic[W]):
    """The desk of one node. A `W` waits for an outcome: a connection or a simulated device."""

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
        self._observer = observer
        self._rng = rng
        self._burst = settings.burst
        self._meter = Gcra(rate_per_s=calendar.rate_per_s, burst=settings.burst, now=now)
        self.set_rate(calendar.rate_per_s, now)
        self._shares = FairShares()
        self._lot: ParkingLot[W] = ParkingLot(places=settings.lot_places)
        self._entitlements = Entitlements(
            office=office,
            calendar=calendar,
            observer=observer,
            window_s=settings.window_s,
            late_s=settings.late_s,
            entries_max=settings.promises_max,
        )
        self._undecided: OrderedDict[W, tuple[Claim, bool]] = OrderedDict()
        """Knocks that wait for the calendar to have slots at hand."""
        self._displaced: list[tuple[W, Outcome]] = []
        self._hold: Hold | None = None

    @property
    def parked(self) -> int:
        return len(self._lot)

    def lead_s(self, now: float) -> float:
        """Seconds until the next free slot: the predicted time until the storm is over."""
        return self._calendar.lead_s(now)

    def knock(self, claim: Claim, waiter: W, now: float) -> Outcome | None:
        """Decide on a knock.

        Returns:
            The outcome, or None if `waiter` waits for one; `poll` brings it.
        """
        if self._hold is not None:
            return self._refuse_in_hold(self._hold, claim, now)
        place = self._lot.place_of(claim.holder)
        if place is not None:
            self._take_over(place, waiter)
            return None
        promise = self._entitlements.promise_of(claim.holder, claim.ticket, now)
        if promise is None:
            return self._walk_in(claim, waiter, now, False)
        return self._keep(claim, waiter, now, promise)

    def poll(self, now: float) -> list[tuple[W, Outcome]]:
        """The outcomes that are due. Call it at `next_poll_at`, or more often."""
        outcomes, self._displaced = self._displaced, []
        while self._undecided and self._calendar.ready(now):
            waiter, (claim, late) = self._undecided.popitem(last=False)
            outcome = self._decide_at_last(claim, waiter, now, late)
            if outcome is not None:
                outcomes.append((waiter, outcome))
        lot = self._lot
        while (place := lot.front(now)) is not None and self._counted(now, place.cost):
            outcomes.append((lot.take(place), ADMIT))
        if place is not None and self._calendar.share < 1:
            self._calendar.short_of(lot.due(now, self._burst))
        while (place := lot.overdue(now)) is not None:
            self._observer.over_meter()
            self._count(now, place.cost)
            outcomes.append((lot.take(place), ADMIT))
        return outcomes

    def next_poll_at(self) -> float | None:
        """When the next outcome may be due; None without waiters.

        Waiters for the calendar do not count: the code that fills the calendar polls.
        """
        if self._displaced:
            return 0.0
        due = self._lot.next_due()
        if due is None:
            return None
        return min(max(due, self._meter.ready_at()), self._lot.next_latest())

    def left(self, waiter: W, now: float) -> None:
        """A waiter hung up. It gets no outcome; what it was promised stands."""
        if self._undecided.pop(waiter, None) is not None:
            return
        place = self._lot.leave(waiter)
        if place is not None:
            self._entitlements.restore(place.holder, place.due, now)

    def admitted_elsewhere(self, holders: Iterable[bytes], now: float) -> None:
        """Other nodes have admitted these devices: the slots promised here for this time are used.

        A ticket that one of them shows all the same is still honoured once: it may have lost the
        answer with its connection.
        """
        for holder in holders:
            self._entitlements.used_elsewhere(holder, now)

    def set_rate(self, rate_per_s: float, now: float) -> None:
        """R, or this node's share of it, changed. Promised slots stay."""
        self._meter.set_rate(rate_per_s * self._calendar.share, now)
        self.set_burst(self._burst)

    def set_burst(self, burst: float) -> None:
        """Change how many devices are admitted at once: at least one, also by a small share."""
        self._burst = burst
        self._meter.set_burst(max(1.0, burst * self._calendar.share))

    def hold(self, now: float) -> list[tuple[W, Outcome]]:
        """Admit no device until `release`: the stream cannot take more.

        Returns:
            Refusals for all that waited, each with another slot.
        """
        pause_s_max = self._settings.overload_retry_s
        hold = self._hold = Hold(since=now, pause_s_max=pause_s_max, rng=self._rng)
        outcomes, self._displaced = self._displaced, []
        for place in self._lot.clear():
            priority = place.rank is PRIORITY
            refusal = self._postpone(hold, place.holder, place.cost, now, priority)
            outcomes.append((place.waiter, refusal))
        while self._undecided:
            waiter, (claim, _late) = self._undecided.popitem(last=False)
            outcomes.append((waiter, self._refuse_in_hold(hold, claim, now)))
        return outcomes

    def release(self) -> None:
        """The hold is over."""
        self._hold = None

    @property
    def held(self) -> bool:
        return self._hold is not None

    # In a hold

    def _refuse_in_hold(self, hold: Hold, claim: Claim, now: float) -> Refuse:
        """Repeat a slot that is still to come; replace one that was due."""
        holder, priority = claim.holder, claim.urgent
        promise = self._entitlements.promise_of(holder, claim.ticket, now)
        if promise is not None:
            if promise.slot_at > now:
                ticket = self._entitlements.repeat(holder, promise, now)
                return Refuse("overload", promise.slot_at - now, ticket)
            self._entitlements.spend(holder, promise.slot_at, now)
            priority = priority or promise.rank is PRIORITY
        return self._postpone(hold, holder, self._cost(claim), now, priority)

    def _postpone(
        self, hold: Hold, holder: bytes, cost: float, now: float, priority: bool
    ) -> Refuse:
        """The next free slot, after the pause of the hold."""
        pause_s = hold.pause_s(now)
        if not self._calendar.ready(now):
            return Refuse("overload", pause_s)
        slot_at = self._calendar.reserve(now, cost, priority)
        if slot_at is None:
            return self._past_horizon("overload")
        slot_at = max(slot_at, now + pause_s)
        ticket = self._entitlements.promise(holder, slot_at, now, priority)
        return Refuse("overload", slot_at - now, ticket)

    # Promises

    def _keep(self, claim: Claim, waiter: W, now: float, promise: Promise) -> Outcome | None:
        """Do what was promised, or what is left of the promise."""
        if now < promise.slot_at:
            return self._early(claim, waiter, now, promise)
        if now <= promise.slot_at + self._settings.window_s:
            return self._honour(claim, waiter, now, promise)
        self._observer.ticket_late(now - promise.slot_at)
        # Spent, so that it gives priority once. The slot it leads to is the device's own from now.
        self._entitlements.spend(claim.holder, promise.slot_at, now)
        late = self._entitlements.gives_priority(promise, now)
        return self._walk_in(claim, waiter, now, late)

    def _early(self, claim: Claim, waiter: W, now: float, promise: Promise) -> Outcome | None:
        wait_s = promise.slot_at - now
        if wait_s <= self._settings.park_s and self._lot.room(promise.rank):
            self._entitlements.spend(claim.holder, promise.slot_at, now)
            self._park(claim, waiter, promise.rank, promise.slot_at, now)
            return None
        self._observer.ticket_early(wait_s)
        return Refuse("rate", wait_s, self._entitlements.repeat(claim.holder, promise, now))

    def _honour(self, claim: Claim, waiter: W, now: float, promise: Promise) -> Outcome | None:
        self._observer.ticket_honoured(now - promise.slot_at)
        self._entitlements.spend(claim.holder, promise.slot_at, now)
        cost = self._cost(claim)
        if not self._counted(now, cost):
            if self._lot.room(promise.rank):
                self._park(claim, waiter, promise.rank, promise.slot_at, now)
                return None
            self._observer.over_meter()
            self._count(now, cost)
        return ADMIT

    def _take_over(self, place: Parked[W], waiter: W) -> None:
        """A device in the lot knocks again: its newer connection takes the place."""
        older = self._lot.replace(place, waiter)
        self._displaced.append((older, Refuse("rate", self._settings.patience_s)))

    # Walk-ins

    def _walk_in(self, claim: Claim, waiter: W, now: float, late: bool) -> Outcome | None:
        calendar, cost = self._calendar, self._cost(claim)
        if self._lot.front(now) is None and calendar.take_vacated(now, cost, self._meter):
            self._shares.served(claim.tenant, claim.group, cost, now)
            self._observer.slot_given_back()
            return ADMIT
        if not calendar.ready(now):
            self._undecided[waiter] = (claim, late)
            return None
        return self._place(claim, waiter, now, cost, late)

    def _decide_at_last(self, claim: Claim, waiter: W, now: float, late: bool) -> Outcome | None:
        """After the wait for the calendar: another connection may have given the device a slot."""
        place = self._lot.place_of(claim.holder)
        if place is not None:
            self._take_over(place, waiter)
            return None
        promise = self._entitlements.promise_of(claim.holder, "", now)
        if promise is not None:
            return self._keep(claim, waiter, now, promise)
        return self._place(claim, waiter, now, self._cost(claim), late)

    def _place(
        self, claim: Claim, waiter: W, now: float, cost: float, late: bool
    ) -> Outcome | None:  # fmt: skip
        """Give a walk-in the next free slot."""
        priority = claim.urgent or late or self._shares.underserved(claim.tenant, claim.group, now)
        slot_at = self._calendar.reserve(now, cost, priority)
        if slot_at is None:
            return self._past_horizon("rate")
        self._shares.served(claim.tenant, claim.group, cost, now)
        rank = PRIORITY if priority else WALK_IN
        if slot_at <= now and self._nobody_before(rank, now) and self._counted(now, cost):
            return ADMIT
        in_time = now + self._settings.park_s
        if slot_at <= in_time and self._meter.ready_at(cost) <= in_time and self._lot.room(rank):
            self._park(claim, waiter, rank, slot_at, now)
            return None
        slot_at = slot_at if slot_at > now else now
        ticket = self._entitlements.promise(claim.holder, slot_at, now, priority)
        return Refuse("rate", slot_at - now, ticket)

    def _past_horizon(self, reason: str) -> Refuse:
        """The calendar is full: a time at random, and no slot."""
        self._observer.past_horizon()
        return Refuse(reason, self._settings.horizon_s * self._rng.uniform(0.5, 1.0))

    def _nobody_before(self, rank: Rank, now: float) -> bool:
        front = self._lot.front(now)
        return front is None or front.rank > rank

    def _park(self, claim: Claim, waiter: W, rank: Rank, due: float, now: float) -> None:
        latest = max(due, now) + self._settings.patience_s
        place = Parked(waiter, rank, due, latest, self._cost(claim), claim.holder)
        self._lot.park(place)
        self._observer.parked(rank.name.lower())

    def _counted(self, now: float, cost: float) -> bool:
        """Count an admission, if there is room for it on this node or in what was lent to it."""
        if self._meter.take_if_conforms(now, cost):
            self._calendar.admitted(cost)
            return True
        return self._calendar.take_lent(now, cost)

    def _count(self, now: float, cost: float) -> None:
        self._meter.take(now, cost)
        self._calendar.admitted(cost)

    def _cost(self, claim: Claim) -> float:
        return self._settings.resume_cost if claim.known else self._settings.cold_cost
