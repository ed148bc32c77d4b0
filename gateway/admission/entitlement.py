"""Which slot a device is entitled to: by the ticket that it shows, or as this node remembers.

A ticket says which slot a device was promised, on any node. `promises.py` is what this node
remembers beside the tickets. One device has one slot, so the two are reconciled here.
"""

from msgspec import Struct

from gateway.admission.calendar import Calendar
from gateway.admission.errors import TicketError
from gateway.admission.lot import PRIORITY, TICKET, Rank
from gateway.admission.observer import AdmissionObserver
from gateway.admission.promises import Promises
from gateway.admission.ticket import TICKET_PRECISION_S, TicketOffice


class Promise(Struct, frozen=True, gc=False):
    """A slot that a device was promised, and the rank of the device in the lot."""

    slot_at: float
    rank: Rank


class Entitlements:
    """The slots that devices were promised. Times in seconds of one clock."""

    def __init__(
        self,
        *,
        office: TicketOffice,
        calendar: Calendar,
        observer: AdmissionObserver,
        window_s: float,
        late_s: float,
        entries_max: int,
    ) -> None:
        """
        Args:
            office: issues and checks tickets.
            calendar: says which slots were promised at all.
            observer: hears of tickets that are issued, or worth nothing.
            window_s: how long after its slot a ticket is honoured.
            late_s: how long after its window a ticket still gives priority.
            entries_max: slots that this node remembers, promised and used.
        """
        self._office = office
        self._calendar = calendar
        self._observer = observer
        self._window_s = window_s
        self._late_s = late_s
        self._promises = promises = Promises(entries_max=entries_max, keep_s=window_s + late_s)
        self.spend = promises.spend
        """`spend(holder, slot_at, now)`: the device uses its slot. A ticket for this slot, or an
        earlier one, counts no more."""

    def promise_of(self, holder: bytes, ticket: str, now: float) -> Promise | None:
        """The slot that a device was promised, or None.

        A device that ignores tickets and comes back on time must not starve. A device that shows
        an old ticket has the slot that it was promised since.
        """
        shown = self._shown(holder, ticket, now) if ticket else None
        if shown is not None and shown.slot_at >= now - self._window_s:
            return shown
        remembered = self._promises.slot_of(holder)
        return shown if remembered is None else Promise(remembered, TICKET)

    def gives_priority(self, promise: Promise, now: float) -> bool:
        """Whether a promise whose window has passed still gives priority."""
        return now <= promise.slot_at + self._window_s + self._late_s

    def promise(self, holder: bytes, slot_at: float, now: float, priority: bool) -> str:
        """Promise a new slot.

        Returns:
            The ticket for it.
        """
        self._promises.hold(holder, slot_at, now)
        self._observer.ticket_issued(slot_at - now)
        return self._office.issue(slot_at, holder, now, priority)

    def repeat(self, holder: bytes, promise: Promise, now: float) -> str:
        """The ticket for a slot that was promised before, also by another node.

        The ticket is issued again. The text that a device sent is never sent back.
        """
        if self._promises.slot_of(holder) != promise.slot_at:
            self._promises.hold(holder, promise.slot_at, now)
        priority = promise.rank is PRIORITY
        return self._office.issue(promise.slot_at, holder, now, priority)

    def restore(self, holder: bytes, slot_at: float, now: float) -> None:
        """The device was cut off before it was admitted: it has its slot again."""
        self._promises.restore(holder, slot_at, now)

    def used_elsewhere(self, holder: bytes, now: float) -> None:
        """Another node has admitted the device: the slot that has come counts as used."""
        self._promises.forget(holder, now)

    def _shown(self, holder: bytes, text: str, now: float) -> Promise | None:
        """What a ticket promises, unless it is worth nothing."""
        try:
            ticket = self._office.check(text, holder, now)
        except TicketError as exc:
            self._observer.ticket_invalid(exc.reason)
            return None
        if ticket.slot_at > self._calendar.promised_until(now):
            # Of an earlier life of this node, and its clock has been set back since: the slot would
            # keep the device away although there are free ones before it.
            self._observer.ticket_invalid("ahead")
            return None
        used = self._promises.used_slot_of(holder)
        if used is not None and ticket.slot_at < used + TICKET_PRECISION_S:
            self._observer.ticket_replayed()
            return None
        return Promise(ticket.slot_at, PRIORITY if ticket.priority else TICKET)
