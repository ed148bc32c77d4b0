"""The storm in virtual time: millions of devices, in minutes.

The calendar, the tickets, the desk and the reconnect policy are the objects that the gateway and
the reference client run. Only time, the network and the behaviour of devices are simulated. A seed
determines the whole run.
"""

import gc
import math
import random
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from gateway.admission.calendar import CalendarSettings, SlotCalendar
from gateway.admission.desk import AdmissionDesk, DeskSettings
from gateway.admission.first_knock import refusals_per_s, spread_ms
from gateway.admission.observer import AdmissionObserver
from gateway.admission.outcome import ADMIT, Claim, Refuse
from gateway.admission.ticket import TicketOffice
from loadtest.devices.policies import Policy, maker_of
from loadtest.fleet_calendar import FleetCalendar
from loadtest.schedule import Schedule, in_order
from loadtest.simulated_nodes import Nodes

_SECRET: Final = b"the simulator's own, never used elsewhere"
_EPOCH_S: Final = 1_000_000.0
"""Where virtual time begins: tickets carry Unix time, which is never near zero."""
_LASTED_MS: Final = 3_600_000.0
"""What a policy is told of the session that the storm has ended: it was stable."""


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
    knocks: int = 0
    failures: int = 0
    dishonoured: int = 0
    absent: int = 0
    most_knocks: int = 0
    waits: "array[float]" = field(default_factory=lambda: array("d"))
    """When each device was in, in order."""
    knocks_by_second: Counter[int] = field(default_factory=Counter)

    @property
    def admitted(self) -> int:
        return len(self.waits)

    @property
    def recovery_s(self) -> float:
        """When the last device was in."""
        return self.waits[-1] if self.waits else 0.0

    @property
    def ideal_s(self) -> float:
        """N/R, where N is the devices that came back."""
        return (self.plan.devices - self.absent) / self.plan.rate_per_s

    @property
    def recovery_over_ideal(self) -> float:
        """Recovery in N/R, counted from when a node admits."""
        return (self.recovery_s - self.plan.down_s - self.plan.held_s) / self.ideal_s

    @property
    def over(self) -> bool:
        """Whether every device that came back was in before the time was up."""
        return self.admitted + self.absent >= self.plan.devices

    @property
    def knocks_a_device(self) -> float:
        return self.knocks / self.plan.devices

    @property
    def peak_knocks_per_s(self) -> int:
        return max(self.knocks_by_second.values(), default=0)

    def wait_s(self, percent: int) -> float:
        """A percentile of the time from the drop to the welcome."""
        waits, count = self.waits, len(self.waits)
        if count < 2:
            return waits[0] if waits else 0.0
        # As of `statistics.quantiles`, which would sort millions that are in order already.
        place = min(max((count + 1) * percent // 100, 1), count - 1)
        beyond = (count + 1) * percent - place * 100
        return (waits[place - 1] * (100 - beyond) + waits[place] * beyond) / 100


class _Device:
    """A device that is not in yet, from its first knock to its admission.

    Then the object is the next device that knocks: ten million would not fit the memory.
    """

    __slots__ = ("at", "holder", "knocks", "node", "policy", "skew")

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.at = 0.0
        """When it knocks next."""
        self.holder = b""
        self.skew = 1.0
        self.node = 0
        self.knocks = 0


class Simulator:
    """One storm."""

    def __init__(self, plan: StormPlan) -> None:
        self._plan = plan
        self._rng = random.Random(plan.seed)
        self._make_policy = maker_of(plan.policy, self._rng, first_retry_ms=plan.first_retry_ms)
        settings, rate_per_s = CalendarSettings(burst=plan.burst), plan.rate_per_s
        alone = SlotCalendar(settings, rate_per_s=rate_per_s, now=_EPOCH_S)
        fleet = FleetCalendar(settings, rate_per_s=rate_per_s, now=_EPOCH_S, nodes=plan.nodes)
        self._fleet = fleet if plan.nodes > 1 else None
        calendar = self._fleet or alone
        office = TicketOffice([_SECRET])
        # Nodes share one calendar, as over Redis; each remembers only the slots it promised.
        self._desks: list[AdmissionDesk[_Device]] = [
            AdmissionDesk(
                DeskSettings(burst=plan.burst),
                calendar=calendar,
                office=office,
                observer=AdmissionObserver(),
                rng=self._rng,
                now=_EPOCH_S,
            )
            for _ in range(plan.nodes)
        ]
        self._nodes = Nodes(plan.nodes)
        self._events = Schedule[_Device]()
        self._done: list[_Device] = []
        """Devices that are in, whose objects can be used again."""
        self._result = StormResult(plan)
        self._turns = _Turns(plan)
        if plan.held_s:
            for desk in self._desks:
                desk.hold(_EPOCH_S + plan.down_s)

    def run(self) -> StormResult:
        """Run until every device that comes is in, or the time is up."""
        events, polls, fleet = self._events, self._nodes.polls, self._fleet
        pop, knock, new_device = events.pop, self._knock, self._new_device
        arrivals = self._arrivals()
        arrival = next(arrivals, math.inf)
        turns_at = 0.0
        while True:
            now = events.next_at
            if arrival < now:
                now = arrival
            poll = polls[0] if fleet is None else min(polls)
            if poll < now:
                now = poll
            if now >= turns_at:
                if now > self._plan.time_limit_s:  # infinity, if no device is left
                    break
                turns_at = self._turn(now)
            at = _EPOCH_S + now
            if fleet is not None:
                fleet.now = at
            if poll == now:
                self._poll(polls.index(now), now)
            elif arrival == now:
                arrival = next(arrivals, math.inf)
                knock(new_device(), now, at)
            else:
                knock(pop(), now, at)
        self._turns.count(self._result, math.inf)
        return self._result

    def _turn(self, now: float) -> float:
        """Do what does not happen at each knock. Returns when there is more of it to do."""
        turns = self._turns
        if now >= turns.fails_at:
            self._nodes.fail()
            turns.fails_at = math.inf
        if now >= turns.hold_ends_at:
            turns.hold_ends_at = math.inf
            for desk in self._desks:
                desk.release()
        turns.count(self._result, now)
        return turns.next_at

    def _arrivals(self) -> Iterator[float]:
        """When the devices knock for the first time, in order."""
        policy, way_s = self._make_policy(), self._plan.rtt_s / 2

        def times() -> Iterator[float]:
            for _ in range(self._plan.devices):
                policy.closed(_LASTED_MS)
                yield policy.next_delay_ms() / 1_000 + way_s

        return in_order(times())

    def _new_device(self) -> _Device:
        plan, rng = self._plan, self._rng
        device = self._done.pop() if self._done else _Device(self._make_policy())
        device.policy.closed(_LASTED_MS)
        if plan.policy == "decorrelated":
            device.policy.next_delay_ms()  # the next delay depends on the one before this knock
        device.holder = rng.getrandbits(64).to_bytes(8, "little")
        device.knocks = 0
        if plan.clock_error:
            device.skew = 1 + rng.uniform(-plan.clock_error, plan.clock_error)
        if plan.nodes > 1:
            device.node = rng.randrange(plan.nodes)
        return device

    def _knock(self, device: _Device, now: float, at: float) -> None:
        node, nodes = device.node, self._nodes
        self._result.knocks += 1
        device.knocks += 1
        if now < self._plan.down_s or not nodes.alive[node]:
            self._turn_away(device, None, now)
            return
        desk, polls = self._desks[node], nodes.polls
        # By place: by name, it costs twice as much.
        shown = device.policy.ticket or ""
        claim = Claim("default", "default", device.holder, False, False, shown)
        outcome = desk.knock(claim, device, at)
        if outcome is None or polls[node] != math.inf:
            polls[node] = _poll_at(desk)
        if outcome is ADMIT:
            self._welcome(device, now)
        elif isinstance(outcome, Refuse):
            self._turn_away(device, outcome, now)

    def _welcome(self, device: _Device, now: float) -> None:
        result = self._result
        result.waits.append(now)
        if device.knocks > result.most_knocks:
            result.most_knocks = device.knocks
        device.policy.opened()
        self._done.append(device)

    def _turn_away(self, device: _Device, refusal: Refuse | None, now: float) -> None:
        """A knock was refused or, without `refusal`, not answered."""
        plan, policy, rng = self._plan, device.policy, self._rng
        if refusal is None:
            self._stay_silent(device)
        else:
            if policy.ticket and refusal.reason == "rate":
                self._result.dishonoured += 1
            if plan.no_shows and rng.random() < plan.no_shows:
                self._result.absent += 1
                return
            if plan.nodes > 1:
                device.node = rng.randrange(plan.nodes)
            policy.refused(math.ceil(refusal.retry_s * 1_000.0), refusal.ticket or None)
        delay_s = policy.next_delay_ms() / 1_000 * device.skew
        device.at = now + plan.rtt_s + delay_s + rng.random() * plan.lateness_s
        self._events.add(device)

    def _stay_silent(self, device: _Device) -> None:
        self._result.failures += 1
        device.policy.silent()
        if not self._nodes.alive[device.node]:
            device.node = self._nodes.another(self._rng)

    def _poll(self, number: int, now: float) -> None:
        desk = self._desks[number]
        # A microsecond later, so that rounding cannot poll the same moment for ever.
        for device, outcome in desk.poll(_EPOCH_S + now + 1e-6):
            if isinstance(outcome, Refuse):
                self._turn_away(device, outcome, now)
            else:
                self._welcome(device, now)
        self._nodes.polls[number] = _poll_at(desk)


class _Turns:
    """When something is due that does not happen at each knock."""

    def __init__(self, plan: StormPlan) -> None:
        self.fails_at = plan.fail_node_at_s if plan.fail_node_at_s is not None else math.inf
        self.hold_ends_at = plan.down_s + plan.held_s
        self._limit_s = plan.time_limit_s
        self._second = 0
        self._counted = 0

    @property
    def next_at(self) -> float:
        return min(self.fails_at, self.hold_ends_at, self._second + 1, self._limit_s)

    def count(self, result: StormResult, now: float) -> None:
        """Note the knocks of the second that is over, if it is over."""
        if now < self._second + 1:
            return
        if result.knocks > self._counted:
            result.knocks_by_second[self._second] = result.knocks - self._counted
            self._counted = result.knocks
        self._second = int(min(now, self._limit_s))


def _poll_at(desk: AdmissionDesk[_Device]) -> float:
    due = desk.next_poll_at()
    return math.inf if due is None else due - _EPOCH_S


def simulate(plan: StormPlan) -> StormResult:
    """Run one storm.

    Nothing in it makes cycles, and the passes of the collector over millions of devices would take
    most of the time.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        return Simulator(plan).run()
    finally:
        if collecting:
            gc.enable()
