"""Fetches leases of the fleet's calendar: the I/O around `leased_calendar`."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from gateway.admission.calendar import CalendarSettings
from gateway.admission.clock import TOLERANCE_S, FleetClock
from gateway.cluster.errors import RedisUnavailable
from gateway.cluster.leased_calendar import Lease, LeasedCalendar
from gateway.cluster.link import Argument, RedisLink
from gateway.cluster.nodes import NodeRegistry

_REST_LEASES: Final = 5.0
_REST_CREDIT: Final = 0.25


def fruitless_rest_s(lease_s: float, *, burst: float, rate_per_s: float) -> float:
    """Seconds until the next lease after one that brought nothing. Pure.

    Past the horizon every knock asks for a lease. So a few times the least time between two leases
    passes; but no more than a quarter of the burst may come free meanwhile, because the fleet's
    meter holds one burst at most.

    Args:
        lease_s: the least time between two leases.
        burst: of the fleet's calendar.
        rate_per_s: R of the fleet.
    """
    return max(lease_s, min(_REST_LEASES * lease_s, _REST_CREDIT * burst / rate_per_s))


class SharedCalendar:
    """Supplies a `LeasedCalendar`: one call in flight at most, and one in `lease_s` at most.

    The calendar uses local time and Redis uses fleet time. This class converts.
    """

    def __init__(
        self,
        link: RedisLink,
        settings: CalendarSettings,
        *,
        node: str,
        nodes: NodeRegistry,
        rate_per_s: float,
        lease_s: float,
        clock: FleetClock,
        local: Callable[[], float],
        on_leased: Callable[[], None],
    ) -> None:
        """
        Args:
            link: to Redis.
            settings: of the fleet's calendar.
            node: name of this process.
            nodes: knows the epoch of Redis, and sends a heartbeat when a lease is refused.
            rate_per_s: R until the fleet has agreed on one.
            lease_s: the least time between two leases, seconds.
            clock: fleet time.
            local: local time, seconds.
            on_leased: called when there are new slots to hand out.
        """
        self._link = link
        self._settings = settings
        self._node = node
        self._nodes = nodes
        self._lease_s = lease_s
        self._clock = clock
        self._local = local
        self._on_leased = on_leased
        self._needed = asyncio.Event()
        self._keys = [link.key("calendar"), nodes.fleet_key, link.key("promises")]
        self.leases = 0
        self.calendar = LeasedCalendar(
            settings, rate_per_s=rate_per_s, now=local(), on_need=self._needed.set
        )
        self.calendar.set_fleet(rate_per_s, nodes.nodes)
        self.calendar.go_alone(local())
        link.on_down.append(self.go_alone)

    async def run(self) -> None:
        """Fetch leases for ever."""
        while True:
            await self._needed.wait()
            self._needed.clear()
            if not self.calendar.alone:
                await self._lease()
            await asyncio.sleep(self._rest_s())

    def _rest_s(self) -> float:
        if not self.calendar.fruitless:
            return self._lease_s
        burst, rate_per_s = self._settings.burst, self.calendar.rate_per_s
        return fruitless_rest_s(self._lease_s, burst=burst, rate_per_s=rate_per_s)

    async def _lease(self) -> None:
        calendar, settings, clock = self.calendar, self._settings, self._clock
        wish = calendar.wish(self._local())
        arguments: list[Argument] = [
            calendar.rate_per_s, settings.burst, settings.headroom, settings.priority_share,
            settings.give_back, settings.horizon_s, wish.slots, wish.priority, wish.vacated,
            f"{wish.admitted:.3f}", f"{wish.hint + clock.offset_s:.6f}", self._node,
            self._nodes.epoch, f"{clock():.6f}", TOLERANCE_S, f"{wish.promised_s:.6f}",
            f"{wish.promised_until + clock.offset_s:.6f}", wish.lent,
        ]  # fmt: skip
        try:
            reply = await self._link.script("lease", self._keys, arguments)
        except RedisUnavailable:
            calendar.undo(wish)
            return
        if reply[0] != "leased":
            # Redis forgot, or has another time. A heartbeat finds out.
            calendar.undo(wish)
            self.go_alone()
            self._nodes.beat_soon()
            return
        now, first, slots, first_priority, priority, vacated, front, lent = map(float, reply[1:])
        offset_s = clock.offset_s
        self.leases += 1
        calendar.leased(
            Lease(
                now - offset_s,
                first - offset_s,
                int(slots),
                first_priority - offset_s,
                int(priority),
                int(vacated),
                front - offset_s,
                int(lent),
            )
        )
        self._on_leased()

    def set_burst(self, burst: float) -> None:
        """Change the burst, which each lease tells Redis."""
        self._settings = replace(self._settings, burst=burst)
        self.calendar.set_burst(burst)

    def rejoin(self) -> None:
        """The fleet is complete: use its calendar again."""
        if self.calendar.alone:
            self.calendar.rejoin()
            self._needed.set()

    def go_alone(self) -> None:
        """This node cannot lease: it uses its share of R."""
        self.calendar.go_alone(self._local())
        self._on_leased()
