"""The storm in virtual time: millions of devices, in minutes.

The calendar, the tickets, the desk and the reconnect policy are the objects that the gateway and
the reference client run. Only time, the network and the behaviour of devices are simulated. A seed
determines the whole run.
"""

import heapq
import itertools
import math
import random
import statistics
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console
from rich.table import Table

from gateway.admission.calendar import CalendarSettings, SlotCalendar
from gateway.admission.desk import AdmissionDesk, DeskSettings
from gateway.admission.first_knock import refusals_per_s, spread_ms
from gateway.admission.gcra import Gcra
from gateway.admission.observer import AdmissionObserver
from gateway.admission.outcome import Admit, Claim, Outcome
from gateway.admission.ticket import TicketOffice
from loadtest.devices.policies import Policy, make_policy

_SECRET: Final = b"the simulator's own, never used elsewhere"
_EPOCH_S: Final = 1_000_000.0
"""Where virtual time begins: tickets carry Unix time, which is never near zero."""


@dataclass(frozen=True, slots=True)
class StormPlan:
    """A storm. Times in seconds, rates a second, shares 0 to 1."""

    devices: int
    rate_per_s: float
    policy: str = "ticket"
    burst: float = 100.0
    refusals_per_s: float = 1_000.0
    rtt_s: float = 0.1
    lateness_s: float = 0.05
    """How late a device is at most for the time it was given: timers, sleep, congestion."""
    clock_error: float = 0.0
    """The largest share by which a device's clock is fast or slow."""
    no_shows: float = 0.0
    """The share of refused devices that never return."""
    nodes: int = 1
    fail_node_at_s: float | None = None
    """When one node dies for good, in seconds after the drop."""
    down_s: float = 0.0
    """All nodes restart together: none answers for so long after the drop."""
    held_s: float = 0.0
    """After `down_s` they answer, and admit no device for so long: they have no stream yet."""
    seed: int = 1
    time_limit_s: float = 7_200.0

    @property
    def first_retry_ms(self) -> int:
        """What the gateway would have told such a fleet."""
        capacity = refusals_per_s(self.refusals_per_s, self.rate_per_s)
        return spread_ms(self.devices, capacity, least_ms=2_000)


@dataclass(slots=True)
class StormResult:
    """What became of a storm. Times in seconds after the drop."""

    plan: StormPlan
    admitted: int = 0
    knocks: int = 0
    failures: int = 0
    dishonoured: int = 0
    absent: int = 0
    recovery_s: float = 0.0
    most_knocks: int = 0
    waits: "array[float]" = field(default_factory=lambda: array("d"))
    knocks_by_second: Counter[int] = field(default_factory=Counter)

    @property
    def ideal_s(self) -> float:
        """N/R, where N is the devices that came back."""
        return (self.plan.devices - self.absent) / self.plan.rate_per_s

    @property
    def recovery_over_ideal(self) -> float:
        """Recovery in N/R, counted from when a node admits."""
        return (self.recovery_s - self.plan.down_s - self.plan.held_s) / self.ideal_s

    @property
    def knocks_a_device(self) -> float:
        return self.knocks / self.plan.devices

    @property
    def peak_knocks_per_s(self) -> int:
        return max(self.knocks_by_second.values(), default=0)

    def wait_s(self, percent: int) -> float:
        """A percentile of the time from the drop to the welcome."""
        if len(self.waits) < 2:  # quantiles need two
            return self.waits[0] if self.waits else 0.0
        return statistics.quantiles(self.waits, n=100)[percent - 1]


class FleetCalendar(SlotCalendar):
    """The calendar that several nodes share, as Redis keeps it: with one meter for all of them."""

    def __init__(self, settings: CalendarSettings, *, rate_per_s: float, now: float) -> None:
        super().__init__(settings, rate_per_s=rate_per_s, now=now)
        self._meter = Gcra(rate_per_s=rate_per_s, burst=settings.burst, now=now)
        self.now = now

    def take_vacated(self, now: float, cost: float, credit: float) -> bool:
        del credit  # the credit of one node does not measure what the fleet has left over
        if not super().take_vacated(now, cost, self._meter.credit(now)):
            return False
        self._meter.take(now, cost)
        return True

    def admitted(self, cost: float) -> None:
        self._meter.take(self.now, cost)


class _Device:
    """A device that is not in yet. It exists from its first knock to its admission."""

    __slots__ = ("holder", "knocks", "node", "policy", "shown", "skew")

    def __init__(self, holder: bytes, policy: Policy, skew: float, node: int) -> None:
        self.holder = holder
        self.policy = policy
        self.skew = skew
        self.node = node
        self.knocks = 0
        self.shown = ""


class Simulator:
    """One storm."""

    def __init__(self, plan: StormPlan) -> None:
        self._plan = plan
        self._rng = random.Random(plan.seed)
        self._calendar = FleetCalendar(
            CalendarSettings(burst=plan.burst), rate_per_s=plan.rate_per_s, now=_EPOCH_S
        )
        office = TicketOffice([_SECRET])
        # Nodes share one calendar, as over Redis; each remembers only the slots it promised.
        self._desks: list[AdmissionDesk[_Device]] = [
            AdmissionDesk(
                DeskSettings(burst=plan.burst),
                calendar=self._calendar,
                office=office,
                observer=AdmissionObserver(),
                rng=self._rng,
                now=_EPOCH_S,
            )
            for _ in range(plan.nodes)
        ]
        self._alive = [True] * plan.nodes
        self._events: list[tuple[float, int, _Device]] = []
        self._order = itertools.count()
        self._result = StormResult(plan)
        self._hold_ends_s = plan.down_s + plan.held_s
        if plan.held_s:
            for desk in self._desks:
                desk.hold(_EPOCH_S + plan.down_s)

    def run(self) -> StormResult:
        """Run until every device that comes is in, or the time is up."""
        plan, result = self._plan, self._result
        arrivals = sorted(self._first_knock_s() for _ in range(plan.devices))
        upcoming = 0
        end = plan.time_limit_s
        fails_at = plan.fail_node_at_s if plan.fail_node_at_s is not None else math.inf
        while True:
            arrival = arrivals[upcoming] if upcoming < len(arrivals) else math.inf
            event = self._events[0][0] if self._events else math.inf
            poll, desk = self._next_poll()
            now = min(arrival, event, poll)
            if now > end:  # infinity, if no device is left
                break
            self._calendar.now = _EPOCH_S + now
            if now >= fails_at:
                self._alive[0] = False
                fails_at = math.inf
            if now >= self._hold_ends_s:
                self._release()
            if poll == now:
                self._poll(desk, now)
            elif arrival == now:
                upcoming += 1
                self._knock(self._new_device(), now)
            else:
                _time, _order, device = heapq.heappop(self._events)
                self._knock(device, now)
        return result

    def _release(self) -> None:
        self._hold_ends_s = math.inf
        for desk in self._desks:
            desk.release()

    def _first_knock_s(self) -> float:
        policy = make_policy(self._plan.policy, self._rng, first_retry_ms=self._plan.first_retry_ms)
        return policy.next_delay_ms() / 1_000 + self._plan.rtt_s / 2

    def _new_device(self) -> _Device:
        plan, rng = self._plan, self._rng
        policy = make_policy(plan.policy, rng, first_retry_ms=plan.first_retry_ms)
        policy.next_delay_ms()  # the one that led to this knock
        skew = 1 + rng.uniform(-plan.clock_error, plan.clock_error)
        return _Device(rng.randbytes(8), policy, skew, rng.randrange(plan.nodes))

    def _knock(self, device: _Device, now: float) -> None:
        result = self._result
        result.knocks += 1
        result.knocks_by_second[int(now)] += 1
        device.knocks += 1
        if now < self._plan.down_s:
            result.failures += 1
            device.policy.silent()
            self._come_back(device, now)
            return
        if not self._alive[device.node]:
            result.failures += 1
            device.policy.silent()
            device.node = self._rng.choice([n for n, alive in enumerate(self._alive) if alive])
            self._come_back(device, now)
            return
        device.shown = device.policy.ticket or ""
        claim = Claim("default", "default", device.holder, ticket=device.shown)
        outcome = self._desks[device.node].knock(claim, device, _EPOCH_S + now)
        if outcome is not None:
            self._hear(device, outcome, now)

    def _hear(self, device: _Device, outcome: Outcome, now: float) -> None:
        result, plan = self._result, self._plan
        if isinstance(outcome, Admit):
            result.admitted += 1
            result.recovery_s = max(result.recovery_s, now)
            result.waits.append(now)
            result.most_knocks = max(result.most_knocks, device.knocks)
            return
        if device.shown and outcome.reason == "rate":
            result.dishonoured += 1
        if plan.no_shows and self._rng.random() < plan.no_shows:
            result.absent += 1
            return
        device.node = self._rng.randrange(plan.nodes)
        device.policy.refused(math.ceil(outcome.retry_s * 1_000), outcome.ticket)
        self._come_back(device, now)

    def _come_back(self, device: _Device, now: float) -> None:
        plan = self._plan
        delay_s = device.policy.next_delay_ms() / 1_000 * device.skew
        late_s = self._rng.uniform(0, plan.lateness_s)
        at = now + plan.rtt_s + delay_s + late_s
        heapq.heappush(self._events, (at, next(self._order), device))

    def _next_poll(self) -> tuple[float, int]:
        best, which = math.inf, 0
        for number, desk in enumerate(self._desks):
            due = desk.next_poll_at()
            if due is not None and due - _EPOCH_S < best:
                best, which = due - _EPOCH_S, number
        return best, which

    def _poll(self, number: int, now: float) -> None:
        desk = self._desks[number]
        # A microsecond later, so that rounding cannot poll the same moment for ever.
        for device, outcome in desk.poll(_EPOCH_S + now + 1e-6):
            self._hear(device, outcome, now)


def simulate(plan: StormPlan) -> StormResult:
    """Run one storm."""
    return Simulator(plan).run()


def show(results: Sequence[StormResult]) -> None:
    """Print the results of storms, a column each."""
    table = Table(
        title=f"{results[0].plan.devices:,} devices, R = {results[0].plan.rate_per_s:g}/s"
    )
    table.add_column("")
    for result in results:
        table.add_column(result.plan.policy, justify="right")
    rows: list[tuple[str, Callable[[StormResult], str]]] = [
        ("recovery, s", lambda r: f"{r.recovery_s:,.1f}"),
        ("recovery / (N/R)", lambda r: f"{r.recovery_over_ideal:.3f}"),
        ("knocks a device", lambda r: f"{r.knocks_a_device:.2f}"),
        ("most knocks of one", lambda r: f"{r.most_knocks:,}"),
        ("peak knocks a second", lambda r: f"{r.peak_knocks_per_s:,}"),
        ("wait p50 / p99, s", lambda r: f"{r.wait_s(50):,.1f} / {r.wait_s(99):,.1f}"),
        ("tickets dishonoured", lambda r: f"{r.dishonoured:,}"),
        ("admitted", lambda r: f"{r.admitted:,}"),
        ("never came back", lambda r: f"{r.absent:,}"),
    ]
    for name, render in rows:
        table.add_row(name, *(render(result) for result in results))
    Console().print(table)


def rate_for(plan: StormPlan, within_s: float) -> float:
    """The least R (to half a percent) at which such a storm is over within `within_s`.

    It is found with a small fleet at a small rate, since recovery depends on N/R alone.
    """
    scale = max(1, plan.devices // 20_000)

    def recovery_s(rate_per_s: float) -> float:
        small = StormPlan(
            devices=plan.devices // scale,
            rate_per_s=rate_per_s / scale,
            policy=plan.policy,
            burst=max(1.0, plan.burst / scale),
            refusals_per_s=plan.refusals_per_s / scale,
            rtt_s=plan.rtt_s,
            lateness_s=plan.lateness_s,
            clock_error=plan.clock_error,
            no_shows=plan.no_shows,
            nodes=plan.nodes,
            down_s=plan.down_s,
            seed=plan.seed,
            time_limit_s=within_s * 4,
        )
        result = simulate(small)
        return result.recovery_s if result.admitted + result.absent >= small.devices else math.inf

    low, high = 0.0, plan.devices / within_s
    while recovery_s(high) > within_s:
        low, high = high, high * 1.5
    while high - low > high * 0.005:
        middle = (low + high) / 2
        low, high = (low, middle) if recovery_s(middle) <= within_s else (middle, high)
    return high
