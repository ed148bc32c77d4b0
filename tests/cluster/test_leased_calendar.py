"""A node's part of the fleet's calendar keeps its promises, whatever leases bring."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.admission.calendar import CalendarSettings, SlotCalendar
from gateway.cluster.leased_calendar import Lease, LeasedCalendar
from gateway.cluster.shared_calendar import fruitless_rest_s
from support.storm import Town, fleet

SETTINGS = CalendarSettings(burst=20, horizon_s=900)


class FakeRedis:
    """The fleet's calendar: what lease.lua does, in a few lines of Python."""

    def __init__(self, rate):
        self.rate = rate
        self.front = -1.0

    def lease(self, wish, now):
        step = (1 + SETTINGS.headroom) / self.rate
        first = max(self.front, now - SETTINGS.burst / self.rate, wish.hint)
        self.front = first + wish.slots * step
        return Lease(now, first, wish.slots, 0.0, 0, 0, self.front)


class LeasedTown(Town):
    """A desk whose calendar is leased every tenth of a second."""

    def __init__(self, rate, redis, seed=1):
        self.needed = False
        calendar = LeasedCalendar(SETTINGS, rate_per_s=rate, now=0.0, on_need=self.need)
        super().__init__(rate=rate, burst=20, seed=seed, calendar=calendar)
        self.redis = redis
        self.leases = 0

    def need(self):
        if not self.needed:
            self.needed = True
            self.at(getattr(self, "now", 0.0) + 0.1, self.lease)

    def lease(self):
        self.needed = False
        self.leases += 1
        self.calendar.leased(self.redis.lease(self.calendar.wish(self.now), self.now))
        self.settle(self.desk.poll(self.now))


@settings(deadline=None, max_examples=20)
@given(st.integers(20, 400), st.floats(20, 300), st.integers(0, 50))
def test_everybody_comes_in_with_two_knocks_and_a_few_leases(count, rate, seed):
    town = LeasedTown(rate, FakeRedis(rate), seed)
    devices = fleet(count, 1.0, seed)
    town.add(devices)
    town.run()
    assert all(device.admitted_at is not None for device in devices)
    assert max(device.knocks for device in devices) <= 2
    assert max(town.admissions) <= 1.15 * count / rate + 1.5
    assert town.leases <= max(town.admissions) * 10 + 5


def test_alone_it_goes_on_with_its_share_behind_what_was_promised():
    calendar = LeasedCalendar(SETTINGS, rate_per_s=90, now=0.0, on_need=lambda: None)
    calendar.set_fleet(90.0, 3)
    calendar.leased(Lease(0.0, 5.0, 10, 0.0, 0, 0, 7.0))
    assert calendar.reserve(0.0, 1.0, priority=False) == 5.0
    calendar.go_alone(0.0)
    assert calendar.alone
    assert calendar.rate_per_s == 30
    slots = [calendar.reserve(0.0, 1.0, priority=False) for _ in range(4)]
    assert slots[0] == 7.0
    assert slots[1] - slots[0] == pytest.approx(1.01 / 30)
    calendar.rejoin()
    assert not calendar.alone
    assert calendar.wish(0.0).hint == pytest.approx(slots[3] + 1.01 / 30)


def test_a_lease_nobody_needed_in_time_is_dropped():
    calendar = LeasedCalendar(SETTINGS, rate_per_s=100, now=0.0, on_need=lambda: None)
    calendar.leased(Lease(0.0, 0.0, 50, 0.0, 0, 0, 0.5))
    assert calendar.ready(0.1)
    assert not calendar.ready(10.0)


def test_slots_are_never_handed_out_twice():
    rng, handed = random.Random(3), []
    redis = FakeRedis(100.0)
    nodes = [
        LeasedCalendar(SETTINGS, rate_per_s=100, now=0.0, on_need=lambda: None) for _ in range(3)
    ]
    now = 0.0
    for _ in range(3_000):
        now += rng.uniform(0, 0.005)
        node = rng.choice(nodes)
        if not node.ready(now):
            node.leased(redis.lease(node.wish(now), now))
        if node.ready(now):
            handed.append(node.reserve(now, 1.0, priority=False))
    assert len(set(handed)) == len(handed)
    span = max(handed) - min(handed)
    assert len(handed) <= 100 * span + 21


def test_alone_is_a_slot_calendar():
    calendar = LeasedCalendar(SETTINGS, rate_per_s=100, now=0.0, on_need=lambda: None)
    calendar.go_alone(0.0)
    own = SlotCalendar(SETTINGS, rate_per_s=100, now=0.0)
    for _ in range(50):
        assert calendar.reserve(0.0, 1.0, priority=False) == own.reserve(0.0, 1.0, priority=False)
    assert calendar.lead_s(0.0) == own.lead_s(0.0)


def leased_from(redis, now=0.0, slots=100):
    calendar = LeasedCalendar(SETTINGS, rate_per_s=100, now=now, on_need=lambda: None)
    calendar.leased(Lease(now, now, slots, 0.0, 0, 0, now + slots * 0.0101))
    return calendar


def test_while_slots_are_free_a_lease_brings_enough_for_demand_that_begins():
    """Else the first knocks use up what they have asked for, and the next wait for a lease each."""
    redis, now = FakeRedis(100.0), 10.0
    calendar = LeasedCalendar(SETTINGS, rate_per_s=100, now=0.0, on_need=lambda: None)
    calendar.set_fleet(100.0, nodes=2)
    assert calendar.wish(now).slots == 0, "nobody has knocked"
    assert not calendar.ready(now)
    calendar.leased(redis.lease(calendar.wish(now), now))
    at_hand = 0
    while calendar.ready(now):
        assert calendar.reserve(now, 1.0, priority=False) <= now
        at_hand += 1
    assert at_hand == 3, "a quarter of its share of the burst, rounded up"


def test_while_slots_are_promised_a_lease_brings_what_is_asked_for():
    calendar = LeasedCalendar(SETTINGS, rate_per_s=100, now=0.0, on_need=lambda: None)
    calendar.leased(Lease(0.0, 0.0, 0, 0.0, 0, 0, 5.0))
    assert not calendar.ready(0.0)
    assert calendar.wish(0.0).slots == 1


def test_what_it_promised_and_what_it_holds_explains_the_calendar():
    calendar = leased_from(FakeRedis(100.0))
    assert calendar.wish(0.0).promised_s == pytest.approx(100 * 0.0101)
    for _ in range(60):
        calendar.reserve(-1.0, 1.0, priority=False)
    assert calendar.wish(0.0).promised_s == pytest.approx(100 * 0.0101)
    assert calendar.wish(0.0).promised_until >= 100 * 0.0101
    # A second later those are due; what is still held is not.
    assert calendar.wish(1.5).promised_s == pytest.approx(40 * 0.0101)


def test_half_a_slot_is_half_a_promise():
    calendar = leased_from(FakeRedis(100.0), now=10.0)
    calendar.reserve(9.0, 0.5, priority=False)
    assert calendar.wish(9.0).promised_s == pytest.approx(100 * 0.0101)


def test_a_priority_slot_is_promised_at_the_far_end_of_the_calendar():
    calendar = LeasedCalendar(SETTINGS, rate_per_s=100, now=0.0, on_need=lambda: None)
    calendar.leased(Lease(0.0, 50.0, 10, 0.1, 5, 0, 60.0))
    assert calendar.reserve(0.0, 1.0, priority=True) == 0.1
    assert calendar.wish(5.0).promised_s == pytest.approx(15 * 0.0101), "not due before 60"


def test_what_it_promised_alone_counts_at_the_rate_of_the_fleet():
    """Its slots are further apart, but they use no more of the fleet's calendar."""
    calendar = LeasedCalendar(SETTINGS, rate_per_s=100, now=0.0, on_need=lambda: None)
    calendar.set_fleet(100, nodes=4)
    calendar.go_alone(0.0)
    slots = [calendar.reserve(0.0, 1.0, priority=False) for _ in range(200)]
    promised = sum(slot > 0 for slot in slots)
    calendar.rejoin()
    assert calendar.wish(0.0).promised_s == pytest.approx(promised * 0.0101)
    assert calendar.wish(0.0).hint == pytest.approx(slots[-1] + 4 * 0.0101)


@pytest.mark.parametrize(
    ("burst", "rate_per_s", "rest_s"),
    [(1, 1, 0.25), (100, 10, 0.5), (100, 1_000, 0.1), (60, 300, 0.1), (60, 100, 0.15)],
)
def test_a_lease_that_brought_nothing_is_repeated_later_but_before_the_meter_is_full(
    burst, rate_per_s, rest_s
):
    assert fruitless_rest_s(0.1, burst=burst, rate_per_s=rate_per_s) == pytest.approx(rest_s)


def test_a_lease_is_fruitless_if_all_slots_to_the_horizon_are_promised():
    horizon_s = SETTINGS.horizon_s
    calendar = LeasedCalendar(SETTINGS, rate_per_s=100, now=0.0, on_need=lambda: None)
    assert not calendar.fruitless
    calendar.leased(Lease(0.0, 0.0, 0, 0.0, 0, 0, horizon_s + 1))
    assert calendar.fruitless
    calendar.leased(Lease(0.0, 0.0, 0, 0.0, 0, 3, horizon_s + 1))
    assert not calendar.fruitless  # it brought vacated slots
