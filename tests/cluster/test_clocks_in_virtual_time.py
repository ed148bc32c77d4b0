"""A storm over three nodes in virtual time, while clocks jump by hours both ways.

Desk, calendar, tickets and clock are those of the gateway; Redis is played in a few lines, by the
rules of `heartbeat.lua` and `lease.lua`. True time is `now`; every clock has an origin of its own.
"""

import heapq
import itertools
import random
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.admission.calendar import CalendarSettings
from gateway.admission.clock import TOLERANCE_S, FleetClock
from gateway.admission.desk import AdmissionDesk, DeskSettings
from gateway.admission.office import NodeTicketOffice
from gateway.admission.outcome import Admit, Claim
from gateway.cluster.leased_calendar import Lease, LeasedCalendar
from support.storm import Counting

RATE, BURST, NODES = 50.0, 10, 3
CALENDAR = CalendarSettings(burst=BURST)
STEP_S = (1 + CALENDAR.headroom) / RATE
EPOCH_S = 1_700_000_000.0


class Redis:
    """The shared calendar, and a clock that can be set."""

    def __init__(self):
        self.ahead_s = 0.0
        self.shift = 0.0
        self.views = {}
        self.front = 0.0

    def time(self, now):
        return EPOCH_S + now + self.ahead_s + self.shift

    def beat(self, node, mine, now):
        raw = EPOCH_S + now + self.ahead_s
        if mine is not None:
            view = self.views[node] = mine - raw
            if abs(view - self.shift) > TOLERANCE_S:
                same = sum(abs(each - view) <= TOLERANCE_S for each in self.views.values())
                if same * 2 > len(self.views):
                    self.shift = view
        return raw + self.shift

    def lease(self, wish, hint, mine, now):
        fleet = self.time(now)
        if abs(mine - fleet) > TOLERANCE_S:
            return None
        first = max(self.front, fleet - BURST / RATE, hint)
        self.front = first + wish.slots * STEP_S
        return fleet, first, wish.slots, self.front


@dataclass(eq=False)
class Device:
    holder: bytes
    ticket: str = ""
    inside: bool = False
    pending: bool = False
    waiting: bool = True


class Node:
    def __init__(self, town, number, origin_s, wall_ahead_s):
        self.town = town
        self.number = number
        self.origin_s = origin_s
        self.wall_ahead_s = wall_ahead_s
        self.needed = False
        self.clock = FleetClock(
            lambda: EPOCH_S + town.now + self.wall_ahead_s, lambda: town.now + origin_s
        )
        self.calendar = LeasedCalendar(
            CALENDAR, rate_per_s=RATE, now=self.local(), on_need=self.need
        )
        self.calendar.set_fleet(RATE, NODES)
        self.desk = AdmissionDesk(
            DeskSettings(burst=BURST),
            calendar=self.calendar,
            office=NodeTicketOffice([b"s" * 32], clock=self.clock, ahead_max_s=1_860.0),
            observer=town.observer,
            rng=town.rng,
            now=self.local(),
        )
        self.beat()

    def local(self):
        return self.town.now + self.origin_s

    def need(self):
        if not self.needed:
            self.needed = True
            self.town.at(self.town.now + 0.1, self.lease)

    def beat(self):
        mine = self.clock() if self.clock.synced else None
        reference = self.town.redis.beat(self.number, mine, self.town.now)
        self.clock.steer(reference, uncertainty_s=0.0, patience_s=2.5)
        if self.clock.disputed:
            self.calendar.go_alone(self.local())
        else:
            self.calendar.rejoin()
        pause_s = 0.25 if self.clock.disputed else 1.0
        self.town.at(self.town.now + pause_s * self.town.rng.uniform(0.8, 1.0), self.beat)

    def lease(self):
        self.needed = False
        if self.calendar.alone:
            return
        wish, offset_s = self.calendar.wish(self.local()), self.clock.offset_s
        reply = self.town.redis.lease(wish, wish.hint + offset_s, self.clock(), self.town.now)
        if reply is None:
            self.calendar.undo(wish)
            self.calendar.go_alone(self.local())
        else:
            fleet, first, slots, front = reply
            lease = Lease(fleet - offset_s, first - offset_s, slots, 0.0, 0, 0, front - offset_s)
            self.calendar.leased(lease)
        self.town.settle(self.desk.poll(self.local()))


class Town:
    """Nodes and devices, event by event."""

    def __init__(self, seed, walls):
        self.rng = random.Random(seed)
        self.now = 0.0
        self.observer = Counting()
        self.redis = Redis()
        self.admissions, self.told = [], []
        self._events, self._order = [], itertools.count()
        origins = [5.0, 90_000.0, 3_000_000.0]
        self.nodes = [
            Node(self, number, origin, wall)
            for number, (origin, wall) in enumerate(zip(origins, walls, strict=True))
        ]

    def at(self, time, action, *args):
        heapq.heappush(self._events, (time, next(self._order), action, args))

    def knock(self, device):
        node = self.rng.choice(self.nodes)
        device.pending = True
        claim = Claim("t", "g", device.holder, ticket=device.ticket)
        outcome = node.desk.knock(claim, device, node.local())
        if outcome is not None:
            self.settle([(device, outcome)])

    def settle(self, outcomes):
        for device, outcome in outcomes:
            device.pending = False
            if isinstance(outcome, Admit):
                device.inside = True
                self.admissions.append(self.now)
            else:
                self.told.append(outcome.retry_s)
                device.ticket = outcome.ticket
                late_s = self.rng.uniform(0, 0.05)
                self.at(self.now + outcome.retry_s + late_s, self.knock, device)

    def run(self, count):
        for number in range(count):
            device = Device(number.to_bytes(8, "big"))
            self.at(self.rng.uniform(0, 2), self.knock, device)
        while len(self.admissions) < count:
            polls = [
                (due - node.origin_s, index)
                for index, node in enumerate(self.nodes)
                if (due := node.desk.next_poll_at()) is not None
            ]
            due, index = min(polls, default=(float("inf"), 0))
            if due <= self._events[0][0]:
                self.now = max(self.now, due) + 1e-6
                node = self.nodes[index]
                self.settle(node.desk.poll(node.local()))
            else:
                self.now, _, action, args = heapq.heappop(self._events)
                action(*args)
            assert self.now < 10 * count / RATE, f"{count - len(self.admissions)} were kept out"


HOURS = st.floats(-7_200, 7_200)
JUMPS = st.lists(st.tuples(st.floats(0, 7), HOURS), max_size=4)


def set_by(town, by_s):
    town.redis.ahead_s += by_s


def set_wall(town, node, by_s):
    town.nodes[node].wall_ahead_s += by_s


@settings(deadline=None, max_examples=6)
@given(
    st.integers(0, 1_000),
    st.lists(HOURS, min_size=NODES, max_size=NODES),
    JUMPS,
    st.lists(st.tuples(st.floats(0, 7), st.integers(0, NODES - 1), HOURS), max_size=4),
)
def test_a_storm_ends_in_time_whatever_the_clocks_do(seed, walls, redis_jumps, wall_jumps):
    count = 400
    town = Town(seed, walls)
    for at, by_s in redis_jumps:
        town.at(at, set_by, town, by_s)
    for at, node, by_s in wall_jumps:
        town.at(at, set_wall, town, node, by_s)
    town.run(count)
    lead_s = count * STEP_S
    # In a dispute each node goes on behind all that is promised, with its share.
    assert max(town.told) <= 1.1 * lead_s + 2
    assert max(town.admissions) <= 1.1 * lead_s + 4
    counts = town.observer.counts
    assert "ticket_late" not in counts
    assert "ticket_invalid" not in counts
    inside = sum(1 for each in town.admissions if 2 <= each < 7)
    assert inside <= 5 * RATE * 1.03 + BURST


def test_with_clocks_that_are_off_admissions_keep_to_r_within_three_percent():
    for off_s in (3_600.0, -3_600.0, 30.0):
        for node in range(NODES):
            walls = [0.0] * NODES
            walls[node] = off_s
            town = Town(7, walls)
            town.run(1_000)
            inside = sum(1 for each in town.admissions if 2 <= each < 18)
            assert abs(inside / (16 * RATE) - 1) <= 0.03, (off_s, node)
            assert max(town.told) <= 1_000 * STEP_S + 1
