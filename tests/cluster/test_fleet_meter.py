"""What several nodes admit together keeps to R, also if devices use slots late and all at once."""

import heapq
import itertools
import math
import random

import pytest

from gateway.admission.calendar import CalendarSettings
from gateway.admission.desk import AdmissionDesk, DeskSettings
from gateway.admission.outcome import Admit
from gateway.admission.ticket import TicketOffice
from gateway.cluster.leased_calendar import Lease, LeasedCalendar
from support.storm import SECRET, Counting, fleet, worst_excess

RATE, BURST = 300.0, 60.0
CALENDAR = CalendarSettings(burst=BURST)
STEP_S = (1 + CALENDAR.headroom) / RATE


class Redis:
    """The fleet's calendar and its meter, by the rules of `lease.lua`."""

    def __init__(self):
        self.front = self.meter = -math.inf

    def lease(self, wish, now):
        earliest = now - BURST / RATE
        front = max(self.front, earliest, wish.hint)
        self.front = front + wish.slots * STEP_S
        meter = max(self.meter, earliest) + wish.admitted / RATE
        meter = max(min(meter, now + BURST / RATE), earliest)
        lent = max(0, min(wish.lent, math.ceil(self.room(meter, now) / 2)))
        meter += lent / RATE
        spare = math.floor(self.room(meter, now) - CALENDAR.give_back * BURST)
        vacated = max(0, min(wish.vacated, spare)) if self.front > now else 0
        self.meter = meter + vacated / RATE
        return Lease(now, front, wish.slots, 0.0, 0, vacated, self.front, lent)

    @staticmethod
    def room(meter, now):
        return math.floor((now - meter) * RATE + 0.001)


class Node:
    """A desk whose slots are leased every tenth of a second."""

    def __init__(self, town, nodes):
        self.town = town
        self.needed = False
        self.calendar = LeasedCalendar(CALENDAR, rate_per_s=RATE, now=0.0, on_need=self.need)
        self.calendar.set_fleet(RATE, nodes)
        self.desk = AdmissionDesk(
            DeskSettings(burst=BURST),
            calendar=self.calendar,
            office=TicketOffice([SECRET]),
            observer=town.observer,
            rng=town.rng,
            now=0.0,
        )

    def need(self):
        if not self.needed:
            self.needed = True
            self.town.at(self.town.now + 0.1 * self.town.rng.uniform(0.9, 1.0), self.lease)

    def lease(self):
        self.needed = False
        now = self.town.now
        self.calendar.leased(self.town.redis.lease(self.calendar.wish(now), now))
        self.town.settle(self.desk.poll(now))


class Fleet:
    """Nodes, and devices that knock at any of them: event by event."""

    def __init__(self, nodes, *, comes_at, chosen=None):
        self.rng = random.Random(nodes)
        self.now = 0.0
        self.observer = Counting()
        self.redis = Redis()
        self.admissions = []
        self._comes_at = comes_at
        self._events, self._order = [], itertools.count()
        self._nodes = [Node(self, nodes) for _ in range(nodes)]
        self._chosen = self._nodes[:chosen]

    def at(self, time, action, *args):
        heapq.heappush(self._events, (time, next(self._order), action, args))

    def knock(self, device):
        outcome = self.rng.choice(self._chosen).desk.knock(device.claim(), device, self.now)
        if outcome is not None:
            self.settle([(device, outcome)])

    def settle(self, outcomes):
        for device, outcome in outcomes:
            if isinstance(outcome, Admit):
                self.admissions.append(self.now)
            else:
                device.ticket = outcome.ticket
                self.at(self._comes_at(self.now + outcome.retry_s), self.knock, device)

    def run(self, count):
        for device in fleet(count, 2.0):
            self.at(device.arrives, self.knock, device)
        while len(self.admissions) < count:
            polls = [
                (due, index)
                for index, node in enumerate(self._nodes)
                if (due := node.desk.next_poll_at()) is not None
            ]
            due, index = min(polls, default=(math.inf, 0))
            if not self._events or due <= self._events[0][0]:
                self.now = max(self.now, due) + 1e-6
                self.settle(self._nodes[index].desk.poll(self.now))
            else:
                self.now, _, action, args = heapq.heappop(self._events)
                action(*args)
        return self

    def off_r(self, start, end):
        inside = sum(start <= each < end for each in self.admissions)
        return inside / ((end - start) * RATE) - 1


def late_together(slot):
    """Nothing arrives in the first four seconds: devices with a slot in them come afterwards."""
    return max(slot, 4.0 + slot / 8)


@pytest.mark.parametrize(("nodes", "chosen"), [(2, 2), (8, 8), (8, 1)])
def test_slots_that_are_used_late_all_at_once_are_used_at_r(nodes, chosen):
    """Whether the devices come to all nodes, or to one that the others lend their room."""
    storm = Fleet(nodes, comes_at=late_together, chosen=chosen).run(2_000)
    assert worst_excess(storm.admissions, RATE, BURST) <= BURST
    assert abs(storm.off_r(4.5, 8.0)) <= 0.03
    assert "over_meter" not in storm.observer.counts


def test_a_storm_over_eight_nodes_keeps_to_r_if_devices_come_when_they_are_told():
    storm = Fleet(8, comes_at=lambda slot: slot + 0.02).run(1_500)
    assert worst_excess(storm.admissions, RATE, BURST) <= BURST
    assert abs(storm.off_r(1.0, 4.5)) <= 0.03


def leased(*, lent=0, nodes=8):
    """The calendar of one of eight nodes, all slots of which are promised, at time 0."""
    calendar = LeasedCalendar(CALENDAR, rate_per_s=RATE, now=0.0, on_need=lambda: None)
    calendar.set_fleet(RATE, nodes)
    calendar.leased(Lease(0.0, 5.0, 0, 0.0, 0, 0, 7.0, lent))
    return calendar


def test_a_node_admits_at_its_share_and_alone_at_the_rate_it_has_then():
    calendar = leased(nodes=4)
    assert calendar.share == 0.25
    calendar.go_alone(0.0)
    assert (calendar.share, calendar.rate_per_s) == (1.0, RATE / 4)


def test_room_that_was_lent_is_used_once_and_goes_back_unused():
    calendar = leased(lent=3)
    assert calendar.take_lent(0.1, 1.0)
    assert calendar.take_lent(0.1, 1.0)
    assert not calendar.take_lent(0.1, 1.5)
    assert calendar.wish(0.1).admitted == -1.0
    assert not calendar.take_lent(0.1, 1.0)


def test_room_that_was_lent_long_ago_is_not_used():
    assert not leased(lent=3).take_lent(0.6, 1.0)


def test_a_node_that_met_the_fleet_again_has_no_room_that_was_lent_before():
    calendar = leased(lent=3)
    calendar.go_alone(0.1)
    assert not calendar.take_lent(0.1, 1.0)
    calendar.rejoin()
    assert not calendar.take_lent(0.1, 1.0)
    assert calendar.wish(0.1).admitted == 0.0


def test_what_a_node_is_short_of_is_asked_for_and_soon_no_more():
    calendar = leased()
    calendar.short_of(12.0)
    calendar.short_of(4.0)
    assert [calendar.wish(0.0).lent for _ in range(6)] == [12, 6, 3, 2, 1, 0]
