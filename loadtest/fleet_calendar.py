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
        self._nodes = nodes
        self.now = now

    @property
    def share(self) -> float:
        return 1 / self._nodes

    def take_vacated(self, now: float, cost: float, meter: Gcra) -> bool:
        del meter  # that of one node does not measure what the fleet has left over
        return super().take_vacated(now, cost, self._meter)

    def take_lent(self, now: float, cost: float) -> bool:
        return self._meter.take_if_conforms(now, cost)

    def admitted(self, cost: float) -> None:
        self._meter.take(self.now, cost)
