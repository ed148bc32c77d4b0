"""Fetches leases of the fleet's calendar: the shell of `leased_calendar`."""

import asyncio
from collections.abc import Callable

from gateway.admission.calendar import CalendarSettings
from gateway.admission.clock import FleetClock
from gateway.cluster.errors import RedisUnavailable
from gateway.cluster.leased_calendar import Lease, LeasedCalendar
from gateway.cluster.link import RedisLink


class SharedCalendar:
    """Keeps a `LeasedCalendar` supplied: at most one call in flight, at most one each `lease_s`."""

    def __init__(
        self,
        link: RedisLink,
        settings: CalendarSettings,
        *,
        rate_per_s: float,
        lease_s: float,
        clock: FleetClock,
        on_leased: Callable[[], None],
    ) -> None:
        """
        Args:
            link: to Redis.
            settings: of the fleet's calendar.
            rate_per_s: R until the fleet has agreed on one.
            lease_s: least time between two leases, seconds.
            clock: the fleet's clock.
            on_leased: called when there are new slots to hand out.
        """
        self._link = link
        self._settings = settings
        self._lease_s = lease_s
        self._clock = clock
        self._on_leased = on_leased
        self._needed = asyncio.Event()
        self.leases = 0
        self.calendar = LeasedCalendar(
            settings, rate_per_s=rate_per_s, now=clock(), on_need=self._needed.set
        )
        self.calendar.go_alone(clock())
        link.on_down.append(self._on_down)

    async def run(self) -> None:
        """Lease for ever."""
        while True:
            await self._needed.wait()
            self._needed.clear()
            if not self.calendar.alone:
                await self._lease()
            await asyncio.sleep(self._lease_s)

    async def _lease(self) -> None:
        calendar, settings = self.calendar, self._settings
        wish = calendar.wish()
        try:
            reply = await self._link.script(
                "lease",
                [self._link.key("calendar")],
                [
                    calendar.rate_per_s,
                    settings.burst,
                    settings.headroom,
                    settings.priority_share,
                    settings.give_back,
                    settings.horizon_s,
                    wish.slots,
                    wish.priority,
                    wish.vacated,
                    f"{wish.admitted:.3f}",
                    f"{wish.hint:.6f}",
                ],
            )
        except RedisUnavailable:
            calendar.undo(wish)
            return
        now, first, slots, first_priority, priority, vacated, front = map(float, reply)
        self.leases += 1
        calendar.leased(
            Lease(now, first, int(slots), first_priority, int(priority), int(vacated), front)
        )
        self._on_leased()

    def rejoin(self) -> None:
        """The fleet is complete: its calendar is this node's again."""
        if self.calendar.alone:
            self.calendar.rejoin()
            self._needed.set()

    def _on_down(self) -> None:
        self.calendar.go_alone(self._clock())
        self._on_leased()
