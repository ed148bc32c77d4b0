"""This node's part of the fleet's calendar. Pure; `shared_calendar.py` fetches the leases.

All times are local (see `admission/clock.py`): a correction of fleet time changes nothing here.

The fleet has one calendar, in Redis. A node leases blocks of consecutive slots from it. Recent
demand decides how many, so Redis is called once for a block and not for each knock. A knock that
finds no slot at hand waits for the next lease, at most a tenth of a second.

Each node admits at its share of R by itself. If more devices are due on a node at once, it asks
with its next lease for room that other nodes leave, and the fleet's meter lends it. So what the
nodes admit together stays near R also if devices use their slots late, all at once: without this,
each node would admit at R.

            +---- leased(block) <---- Redis answers
            v
        [ LEASED ] -- Redis lost --> [ ALONE ]  a calendar of its own at R / nodes, which begins
            ^                            |      where the fleet's calendar was
            +----- the fleet is back ----+
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from gateway.admission.calendar import CalendarSettings, SlotCalendar
from gateway.admission.gcra import Gcra
from gateway.cluster.leased_blocks import Block, Blocks

_DEMAND_FADE: Final = 0.5
_DEMAND_MARGIN: Final = 1.25
_AT_HAND: Final = 0.25
"""While slots are free, a lease brings at least this part of the node's share of the burst."""
_GRACE_S: Final = 0.5
"""In a calm fleet a leased slot has almost expired when it arrives; allow 0.5 s for the transit.
Room that was lent can be used for as long."""


class _Ledger:
    """What this node has promised, in seconds of the fleet's calendar, by the second it is due."""

    def __init__(self) -> None:
        self._due: dict[int, float] = {}

    def add(self, due: float, seconds: float) -> None:
        second = int(due)
        self._due[second] = self._due.get(second, 0.0) + seconds

    def outstanding(self, now: float) -> float:
        """Seconds that are promised and not due yet. What is due is forgotten."""
        self._due = {second: part for second, part in self._due.items() if second >= int(now)}
        return sum(self._due.values())

    @property
    def last(self) -> float:
        """When the last promise is due."""
        return max(self._due, default=0) + 1.0


class _Demand:
    """What knocks have asked for, in slots, by the kind of slot."""

    def __init__(self) -> None:
        self.asked = {"main": 0.0, "priority": 0.0, "vacated": 0.0, "lent": 0.0}
        """Since the last lease."""
        self.lately = dict(self.asked)
        """In a lease lately, fading."""
        self.waiting = 0
        """Knocks that found no slot at hand since the last lease."""

    def end_turn(self) -> int:
        """A lease is asked for.

        Returns:
            The knocks that wait for it.
        """
        for kind, asked in self.asked.items():
            self.lately[kind] = max(asked, self.lately[kind] * _DEMAND_FADE)
            self.asked[kind] = 0.0
        waiting, self.waiting = self.waiting, 0
        return waiting


class _Usage:
    """Admissions that the fleet's meter has not heard of, and what it has lent.

    The meter counts as used what it lends: vacated slots, and room for devices that are due.
    """

    def __init__(self) -> None:
        self.admitted = 0.0
        self.vacated = 0.0
        """Vacated slots at hand."""
        self._lent = 0.0
        self._lent_until = 0.0

    def take_vacated(self, cost: float) -> bool:
        """Use a vacated slot, if there is one."""
        if self.vacated < cost:
            return False
        self.vacated -= cost
        return True

    def lend(self, units: float, until: float) -> None:
        """Room for so many devices that are due, to be used by then."""
        self._lent += units
        self._lent_until = until

    def take_lent(self, now: float, cost: float) -> bool:
        """Use room that was lent, if there is some."""
        if self._lent < cost or now > self._lent_until:
            return False
        self._lent -= cost
        return True

    def report(self) -> float:
        """What to tell the meter; counts as told from here on. What was lent, unused, goes back."""
        admitted = self.admitted - self.vacated - self._lent
        self.admitted = self.vacated = self._lent = 0.0
        return admitted


@dataclass(frozen=True, slots=True)
class Wish:
    """What the next lease should bring, in slots, and what this node reports with it."""

    slots: int
    priority: int
    vacated: int
    lent: int
    """Room for devices that are due, beyond this node's share."""
    admitted: float
    hint: float
    promised_s: float
    """Seconds of the fleet's calendar that this node has promised, or holds."""
    promised_until: float
    """When the last promise is due."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What a lease brought. Local times."""

    now: float
    first: float
    slots: int
    first_priority: float
    priority: int
    vacated: int
    front: float
    lent: int = 0


class LeasedCalendar:
    """A `Calendar` that hands out leased slots."""

    def __init__(
        self,
        settings: CalendarSettings,
        *,
        rate_per_s: float,
        now: float,
        on_need: Callable[[], None],
    ) -> None:
        """
        Args:
            settings: of the fleet's calendar.
            rate_per_s: R of the fleet.
            now: local time, seconds.
            on_need: called when a lease should be fetched.
        """
        self._settings = settings
        self._fleet_rate_per_s = rate_per_s
        self._on_need = on_need
        self._nodes = 1
        self._alone: SlotCalendar | None = None
        self._main = Blocks()
        self._priority = Blocks()
        self._ledger = _Ledger()
        self._front = now - settings.burst / rate_per_s
        self._usage = _Usage()
        self._past_horizon = False
        self._demand = _Demand()

    @property
    def rate_per_s(self) -> float:
        """R of the fleet; this node's share of it while it is alone."""
        return self._alone.rate_per_s if self._alone is not None else self._fleet_rate_per_s

    def set_burst(self, burst: float) -> None:
        """Change the burst, of the fleet and of this node while it is alone."""
        self._settings = replace(self._settings, burst=burst)
        if self._alone is not None:
            self._alone.set_burst(burst)

    @property
    def alone(self) -> bool:
        return self._alone is not None

    @property
    def share(self) -> float:
        """Of R and of the burst; all of `rate_per_s` while this node is alone."""
        return 1.0 if self._alone is not None else 1 / self._nodes

    @property
    def _step_s(self) -> float:
        return (1 + self._settings.headroom) / self._fleet_rate_per_s

    def ready(self, now: float) -> bool:
        if self._alone is not None:
            return True
        self._main.drop_before(now - self._settings.burst / self._fleet_rate_per_s - _GRACE_S)
        if self._main.units >= 1 or self._past_horizon:
            return True
        self._demand.waiting += 1
        self._on_need()
        return False

    def reserve(self, now: float, cost: float, priority: bool) -> float | None:
        slot = self._reserve(now, cost, priority)
        if slot is not None and slot > now:
            # A priority slot is early, and moves the end of the calendar.
            due = max(slot, self._front) if priority and self._alone is None else slot
            self._ledger.add(due, cost * self._step_s)
        return slot

    def _reserve(self, now: float, cost: float, priority: bool) -> float | None:
        if self._alone is not None:
            return self._alone.reserve(now, cost, priority)
        demand = self._demand
        demand.asked["main"] += cost
        if priority and self._front > now:
            demand.asked["priority"] += cost
            first = self._priority
            first.drop_before(now - _GRACE_S)
            if first.units >= cost and first.next_slot < self._main.next_slot:
                return first.take(cost)
        if self._main.units < cost:
            self._on_need()  # past the horizon, which may have moved since
            return None
        slot = self._main.take(cost)
        if self._main.units < demand.lately["main"] / 2:
            self._on_need()
        return slot

    def take_vacated(self, now: float, cost: float, meter: Gcra) -> bool:
        if self._alone is not None:
            return self._alone.take_vacated(now, cost, meter)
        if self._front <= now:
            return False
        self._demand.asked["vacated"] += cost
        return self._usage.take_vacated(cost)

    def take_lent(self, now: float, cost: float) -> bool:
        return self._alone is None and self._usage.take_lent(now, cost)

    def short_of(self, units: float) -> None:
        asked = self._demand.asked
        asked["lent"] = max(asked["lent"], units)
        self._on_need()

    def admitted(self, cost: float) -> None:
        self._usage.admitted += cost
        if self._alone is None:
            self._on_need()  # the lease reports it to the fleet's meter

    def promised_until(self, now: float) -> float:
        """Any time: other nodes promise slots that this one hears of later."""
        del now
        return math.inf

    def lead_s(self, now: float) -> float:
        if self._alone is not None:
            return self._alone.lead_s(now)
        return max(0.0, self._front - now)

    # The shell's side

    def wish(self, now: float) -> Wish:
        """What to ask for now. Admissions so far count as reported from here on."""
        demand = self._demand
        waiting = demand.end_turn()
        wanted = demand.lately["main"] * _DEMAND_MARGIN + waiting - self._main.units
        if wanted > 0 and self._front <= now:
            # Nobody waits for these slots. Demand that begins would use up a small block at once,
            # and then each knock would wait for the next lease.
            wanted = max(wanted, _AT_HAND * self._settings.burst * self.share - self._main.units)
        priority = demand.lately["priority"] * _DEMAND_MARGIN - self._priority.units
        return Wish(
            slots=max(0, math.ceil(wanted)),
            priority=max(0, math.ceil(priority)),
            vacated=math.ceil(demand.lately["vacated"]),
            lent=round(demand.lately["lent"]),
            admitted=self._usage.report(),
            hint=self._front,
            promised_s=self._ledger.outstanding(now)
            + (self._main.units + self._priority.units) * self._step_s,
            promised_until=max(self._ledger.last, self._front),
        )

    def leased(self, lease: Lease) -> None:
        """A lease arrived."""
        if lease.slots:
            self._main.add(Block(lease.first, float(lease.slots), self._step_s))
        if lease.priority:
            step_s = self._step_s / self._settings.priority_share
            self._priority.add(Block(lease.first_priority, float(lease.priority), step_s))
        self._usage.vacated += lease.vacated
        self._usage.lend(lease.lent, lease.now + _GRACE_S)
        self._front = lease.front
        horizon_s = self._settings.horizon_s
        self._past_horizon = not lease.slots and lease.front - lease.now > horizon_s

    @property
    def fruitless(self) -> bool:
        """Whether the last lease brought nothing, because all slots to the horizon are promised."""
        return self._past_horizon and self._usage.vacated <= 0

    def undo(self, wish: Wish) -> None:
        """The report of `wish` did not arrive."""
        self._usage.admitted += wish.admitted

    def set_fleet(self, rate_per_s: float, nodes: int) -> None:
        """R of the fleet, and how many nodes share it."""
        self._fleet_rate_per_s = rate_per_s
        self._nodes = max(1, nodes)
        if self._alone is not None:
            self._alone.set_rate(rate_per_s / self._nodes)

    def go_alone(self, now: float) -> None:
        """Redis is lost: use this node's share of R, after what is promised already."""
        if self._alone is not None:
            return
        self._alone = SlotCalendar(
            self._settings, rate_per_s=self._fleet_rate_per_s / self._nodes, now=now
        )
        self._alone.advance_to(self._front)
        self._main.clear()
        self._priority.clear()

    def rejoin(self) -> None:
        """The fleet is back: the next wish tells Redis how far this node has promised."""
        if self._alone is not None:
            self._front = max(self._front, self._alone.front)
            self._alone = None
            self._usage = _Usage()
