"""The slot calendar: virtual scheduling that also looks ahead.

A GCRA keeps one number, the time of the next free slot. Behind `now` it is credit; ahead of `now`
it is a queue of promises, and its distance is how long the storm will take to drain.

            admitted at once            promised
     -----------|----------------------------------------|------------> time
         now - burst/R        now              next free slot      now + horizon

Two of them run side by side. The main one gives every promise its place. The priority one paces
those who go first (urgent devices, who came late, whose group has had little) at a share of the
rate; each of its slots pushes the main one as well, so the sum of all promises is still R.

Promises are packed a little looser than R (`headroom`): priority and lateness live on that.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class CalendarSettings:
    """Rates in admissions a second, times in seconds."""

    burst: float
    horizon_s: float = 900.0
    headroom: float = 0.01
    priority_share: float = 0.2
    give_back: float = 0.5
    """Credit beyond this share of the burst was promised and not claimed: it is given back."""


class Calendar(Protocol):
    """Where slots come from: this node's own calendar, or its lease of the fleet's."""

    @property
    def rate_per_s(self) -> float:
        """R."""

    def ready(self, now: float) -> bool:
        """Whether `reserve` can answer now; if not, ask again when the calendar says so."""

    def reserve(self, now: float, cost: float, *, priority: bool) -> float | None:
        """The next free slot, taken.

        Returns:
            Its time, `now` or earlier if it is free at once; None past the horizon.
        """

    def take_vacated(self, now: float, cost: float, credit: float) -> bool:
        """Take a slot that was promised and not claimed, if there is one.

        Args:
            now: the time.
            cost: of the admission.
            credit: what the meter of this node has at hand.
        """

    def admitted(self, cost: float) -> None:
        """Somebody was let in, other than into a vacated slot."""

    def lead_s(self, now: float) -> float:
        """How far ahead the next free slot is: the predicted time to drain what waits."""


class SlotCalendar:
    """The calendar of one node, or the shared one as Redis keeps it."""

    __slots__ = ("_next", "_next_priority", "_rate_per_s", "_settings")

    def __init__(self, settings: CalendarSettings, *, rate_per_s: float, now: float) -> None:
        self._settings = settings
        self._rate_per_s = rate_per_s
        self._next = now - settings.burst / rate_per_s
        self._next_priority = now

    @property
    def rate_per_s(self) -> float:
        return self._rate_per_s

    def set_rate(self, rate_per_s: float) -> None:
        """Slots from here on are spaced by another rate. Promises stay where they are."""
        self._rate_per_s = rate_per_s

    def ready(self, now: float) -> bool:
        """Always: nobody else is to be asked."""
        del now
        return True

    @property
    def front(self) -> float:
        """The time of the next free slot, as it stands."""
        return self._next

    def advance_to(self, front: float) -> None:
        """Promise nothing before `front`: somebody else already has."""
        self._next = max(self._next, front)

    def take_vacated(self, now: float, cost: float, credit: float) -> bool:
        settings = self._settings
        return self._next > now and credit - settings.burst * settings.give_back >= cost

    def admitted(self, cost: float) -> None:
        """Nothing to tell anybody."""

    def lead_s(self, now: float) -> float:
        return max(0.0, self._next - now)

    def reserve(self, now: float, cost: float, *, priority: bool) -> float | None:
        settings = self._settings
        step = cost * (1 + settings.headroom) / self._rate_per_s
        # Capacity older than the burst is gone: nobody was there to use it.
        slot = self._next = max(self._next, now - settings.burst / self._rate_per_s)
        if slot - now > settings.horizon_s and not priority:
            return None
        if priority and slot > now:
            # Overlaps with what is promised already; the promised wait a little in the lot, and the
            # main front, pushed by the same step, makes up for it.
            earlier = max(self._next_priority, now)
            if earlier < slot:
                self._next_priority = earlier + step / settings.priority_share
                slot = earlier
        if slot - now > settings.horizon_s:
            return None
        self._next += step
        return slot
