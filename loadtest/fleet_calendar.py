"""The calendar of the simulated nodes."""

from gateway.admission.calendar import CalendarSettings, SlotCalendar
from gateway.admission.gcra import Gcra


class FleetCalendar(SlotCalendar):
    """The calendar that several nodes share, as Redis keeps it: with one meter for all of them."""

    def __init__(
        self, settings: CalendarSettings, *, rate_per_s: float, now: float, nodes: int
    ) -> None:
        super().__init__(settings, rate_per_s=rate_per_s, now=now)
        self._meter = Gcra(rate_per_s=rate_per_s, burst=settings.burst, now=now)
        self._vacated_from = settings.burst * settings.give_back
        self._nodes = nodes
        self.now = now

    @property
    def share(self) -> float:
        return 1 / self._nodes

    def take_vacated(self, now: float, cost: float, meter: Gcra) -> bool:
        # The meter of one node of several does not measure what the fleet has left over.
        # No `super` call: half of all knocks come here.
        if self._next <= now or self._meter.credit(now) - self._vacated_from < cost:
            return False
        self._meter.take(now, cost)
        if self._nodes == 1:
            meter.take(now, cost)
        return True

    def take_lent(self, now: float, cost: float) -> bool:
        return self._nodes > 1 and self._meter.take_if_conforms(now, cost)

    def admitted(self, cost: float) -> None:
        self._meter.take(self.now, cost)
