"""The slot calendar: virtual scheduling that also promises slots in the future.

Like a GCRA it keeps one number, the time of the next free slot. If that time is in the past, there
is credit. If it is in the future, all slots before it are promised, and its distance from now is
the time until the storm is over.

            admitted at once            promised
     -----------|----------------------------------------|------------> time
         now - burst/R        now              next free slot      now + horizon

There are two such times. The main one gives each promise its slot. The priority one spaces the
slots of devices that go first (urgent devices, late ticket holders, groups that had few slots
lately) at a share of R. A priority slot also moves the main time, so all promises together still
make R.

Slots are a little further apart than R demands (`headroom`). This leaves room for priority slots
and for devices that are late.
"""

from dataclasses import dataclass, replace
from typing import Protocol

from gateway.admission.gcra import Gcra
from gateway.admission.ticket import TICKET_PRECISION_S


@dataclass(frozen=True, slots=True)
class CalendarSettings:
    """Rates in admissions a second, times in seconds."""

    burst: float
    horizon_s: float = 900.0
    headroom: float = 0.01
    priority_share: float = 0.2
    give_back: float = 0.5
    """Credit beyond this share of the burst means that promised slots were not used."""
    pause_s_max: float = 10.0
    """In a hold, a device may be promised a moment so long after the present one."""


class Calendar(Protocol):
    """Where slots come from: a calendar of this node, or its lease of the fleet's calendar."""

    @property
    def rate_per_s(self) -> float:
        """R."""

    @property
    def share(self) -> float:
        """The part of R, and of the burst, that this node admits without asking other nodes."""

    def ready(self, now: float) -> bool:
        """Whether `reserve` can answer now. If not, the calendar fetches slots."""

    def reserve(self, now: float, cost: float, priority: bool) -> float | None:
        """Take the next free slot.

        Returns:
            Its time, which is `now` or earlier if it is free at once; None past the horizon.
        """

    def take_vacated(self, now: float, cost: float, meter: Gcra) -> bool:
        """Take a slot that was promised and not used, if there is one.

        Args:
            now: the time.
            cost: of the admission.
            meter: of this node. It counts the admission, unless the fleet's meter has counted it.
        """

    def take_lent(self, now: float, cost: float) -> bool:
        """Use room that other nodes have left and that was lent to this one, if there is any."""

    def short_of(self, units: float) -> None:
        """So many admissions are due, and this node has no room left for them."""

    def admitted(self, cost: float) -> None:
        """A device was admitted, neither in a vacated slot nor in room that was lent."""

    def promised_until(self, now: float) -> float:
        """No later moment was promised; infinity if other nodes promise slots too."""

    def lead_s(self, now: float) -> float:
        """How far ahead the next free slot is: the predicted time until the storm is over."""


class SlotCalendar:
    """The calendar of one node. The script `lease.lua` does the same for a fleet."""

    __slots__ = ("_burst_s", "_next", "_next_priority", "_rate_per_s", "_settings", "_stretch")

    def __init__(self, settings: CalendarSettings, *, rate_per_s: float, now: float) -> None:
        self._settings = settings
        self._rate_per_s = rate_per_s
        self._stretch = 1 + settings.headroom
        self._burst_s = settings.burst / rate_per_s
        """How far the next free slot may lie behind."""
        self._next = now - self._burst_s
        self._next_priority = now

    @property
    def rate_per_s(self) -> float:
        return self._rate_per_s

    def set_rate(self, rate_per_s: float) -> None:
        """Space new slots by another rate. Promised slots stay."""
        self._rate_per_s = rate_per_s
        self._burst_s = self._settings.burst / rate_per_s

    def set_burst(self, burst: float) -> None:
        """Change how far the next free slot may lie behind."""
        self._settings = replace(self._settings, burst=burst)
        self._burst_s = burst / self._rate_per_s

    @property
    def share(self) -> float:
        """All: there are no other nodes."""
        return 1.0

    def ready(self, now: float) -> bool:
        """Always: no other node must be asked."""
        del now
        return True

    @property
    def front(self) -> float:
        """The time of the next free slot."""
        return self._next

    def advance_to(self, front: float) -> None:
        """Promise nothing before `front`: other nodes have promised those slots."""
        self._next = max(self._next, front)

    def take_vacated(self, now: float, cost: float, meter: Gcra) -> bool:
        settings = self._settings
        if self._next <= now or meter.credit(now) - settings.burst * settings.give_back < cost:
            return False
        meter.take(now, cost)
        return True

    def take_lent(self, now: float, cost: float) -> bool:
        """Nothing: no other node lends."""
        del now, cost
        return False

    def short_of(self, units: float) -> None:
        """Nothing: no other node must be asked."""

    def admitted(self, cost: float) -> None:
        """Nothing: no other node must be told."""

    def promised_until(self, now: float) -> float:
        latest = self._next if self._next > now else now
        return latest + self._settings.pause_s_max + TICKET_PRECISION_S

    def lead_s(self, now: float) -> float:
        return max(0.0, self._next - now)

    def reserve(self, now: float, cost: float, priority: bool) -> float | None:
        step = cost * self._stretch / self._rate_per_s
        slot = self._next
        # Slots that are older than the burst allows are gone.
        earliest = now - self._burst_s
        if slot < earliest:
            self._next = slot = earliest
        if priority and slot > now:
            # This slot overlaps with promised ones. Their devices wait a little in the lot, and the
            # main time, which moves by the same step, makes up for it.
            earlier = max(self._next_priority, now)
            if earlier < slot:
                self._next_priority = earlier + step / self._settings.priority_share
                slot = earlier
        if slot - now > self._settings.horizon_s:
            return None
        self._next += step
        return slot
