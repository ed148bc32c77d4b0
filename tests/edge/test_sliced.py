"""Slices of the loop's turns. Each item takes a time that the test sets."""

import asyncio

import pytest

from gateway.edge import sliced
from gateway.edge.sliced import Sliced


@pytest.fixture
def clock(monkeypatch):
    """`clock[0]` is the time; only the test moves it."""
    now = [0.0]
    monkeypatch.setattr(sliced, "perf_counter", lambda: now[0])
    return now


async def turn():
    await asyncio.sleep(0)


async def test_a_turn_takes_what_fits_its_slice_and_finishes_what_it_began(clock):
    done = []

    def deal_with(item):
        done.append(item)
        clock[0] += 1.0

    items = Sliced(asyncio.get_running_loop(), 2.5, deal_with)
    for item in range(7):
        items.add(item)
    assert done == []
    await turn()
    assert done == [0, 1, 2]
    await turn()
    assert done == [0, 1, 2, 3, 4, 5]
    items.add(7)
    await turn()
    assert done == list(range(8))
    assert len(items) == 0


async def test_what_is_added_by_an_item_keeps_its_place_and_is_dealt_with_once(clock):
    done = []

    def deal_with(item):
        done.append(item)
        clock[0] += 1.0
        if item < 3:
            items.add(item + 10)

    items = Sliced(asyncio.get_running_loop(), 0.0, deal_with)
    items.add(1)
    items.add(2)
    for _ in range(8):
        await turn()
    assert done == [1, 2, 11, 12]


async def test_clear_returns_the_items_that_are_left(clock):
    done = []
    items = Sliced(asyncio.get_running_loop(), 0.0, done.append)
    clock[0] = 1.0
    items.add("a")
    items.add("b")
    assert items.clear() == ["a", "b"]
    await turn()
    assert done == []
    items.add("c")
    await turn()
    assert done == ["c"]


async def test_work_that_an_item_causes_after_the_slice_counts_against_the_slice(clock):
    done = []
    items = Sliced(asyncio.get_running_loop(), 2.5, done.append, later_s=1.0)
    for item in range(5):
        items.add(item)
    await turn()
    assert done == [0, 1, 2]
    await turn()
    assert done == [0, 1, 2, 3, 4]


class Loop:
    """Keeps what is scheduled, with its delay, until the test runs it."""

    def __init__(self):
        self.scheduled = []

    def call_soon(self, call):
        return self.call_later(0.0, call)

    def call_later(self, delay_s, call):
        self.scheduled.append((delay_s, call))
        return Handle(self.scheduled)

    def run(self):
        """Run what is scheduled, once its delay is over. Returns the delay."""
        ((delay_s, call),) = self.scheduled
        self.scheduled.clear()
        call()
        return delay_s


class Handle:
    def __init__(self, scheduled):
        self._scheduled = scheduled

    def cancel(self):
        self._scheduled.clear()


async def test_where_turns_are_long_a_slice_is_a_share_of_the_time_up_to_1_ms(clock):
    loop, done = Loop(), []
    items = Sliced(loop, 0.0002, done.append, later_s=0.00011, share=0.25)
    for item in range(20):
        items.add(item)
    clock[0] += 0.0016  # other work of this turn
    loop.run()
    assert len(done) == 4  # begun within 0.4 ms
    clock[0] += 0.0001
    loop.run()
    assert len(done) == 4 + 2  # begun within 0.2 ms
    clock[0] += 60.0
    loop.run()
    assert len(done) == 4 + 2 + 10


async def test_with_a_share_the_items_rest_between_their_slices(clock):
    loop, done = Loop(), []

    def deal_with(item):
        done.append(item)
        clock[0] += 0.001

    items = Sliced(loop, 0.0015, deal_with, later_s=0.001, share=0.25)
    clock[0] = 60.0
    for item in range(3):
        items.add(item)
    assert loop.run() == 0.0  # nothing was done for a while: the first slice comes at once
    assert done == [0]
    assert loop.run() == pytest.approx(0.007)  # 2 ms of work are a quarter of 8 ms
    assert done == [0, 1]
    clock[0] += 1.0  # the timer came late
    loop.run()
    assert done == [0, 1, 2]
    assert not loop.scheduled
    items.add(3)
    assert loop.run() == pytest.approx(0.007)
    clock[0] += 1.0
    items.add(4)
    assert loop.run() == 0.0


async def test_in_a_hurry_there_is_a_slice_in_each_turn(clock):
    loop, done = Loop(), []

    def deal_with(item):
        done.append(item)
        clock[0] += 0.001

    items = Sliced(loop, 0.0, deal_with, share=0.01)
    for item in range(3):
        items.add(item)
    loop.run()
    items.hurry()
    assert loop.run() == 0.0
    assert loop.run() == 0.0
    assert done == [0, 1, 2]
    items.hurry()
    assert not loop.scheduled


async def test_an_error_of_an_item_does_not_strand_the_others(clock):
    done, errors = [], []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, found: errors.append(found))

    def deal_with(item):
        if item == 0:
            raise ValueError("0")
        done.append(item)

    items = Sliced(asyncio.get_running_loop(), 1.0, deal_with)
    items.add(0)
    items.add(1)
    await turn()
    await turn()
    assert done == [1]
    assert len(errors) == 1


async def test_nothing_is_dealt_with_while_items_come_as_a_flood(clock):
    loop, done = Loop(), []
    items = Sliced(loop, 0.001, done.append, later_s=0.001, share=0.25)

    def come():
        for item in range(51):
            items.add(item)

    come()
    loop.run()
    for _ in range(9):
        come()
        assert loop.run() == pytest.approx(0.01)
    assert done == []
    assert loop.run() == pytest.approx(0.01)  # nothing came in this rest
    assert done == [0, 1]


async def test_a_flood_without_end_is_dealt_with_after_a_second(clock):
    loop, done = Loop(), []
    items = Sliced(loop, 0.001, done.append, later_s=0.001, share=0.25)
    rests_s = 0.0
    while not done:
        for item in range(51):
            items.add(item)
        rests_s += loop.run()
    assert rests_s == pytest.approx(1.0)
    dealt_with = len(done)
    for item in range(51):
        items.add(item)
    loop.run()
    assert len(done) > dealt_with


async def test_other_work_is_looked_at_after_each_slice(clock):
    done = []

    def deal_with(item):
        done.append(item)
        clock[0] += 1.0

    items = Sliced(asyncio.get_running_loop(), 1.5, deal_with, between=lambda: done.append("other"))
    for item in range(3):
        items.add(item)
    await turn()
    assert done == [0, 1, "other"]
    await turn()
    assert done == [0, 1, "other", 2, "other"]


def test_other_work_is_looked_at_while_items_come_without_an_end_of_the_turn(clock):
    looked = []
    items = Sliced(Loop(), 1.0, looked.append, between=lambda: looked.append(len(items)))
    for item in range(200):
        items.add(item)
    assert looked == [64, 128, 192]


def test_other_work_is_looked_at_between_the_rests_of_a_flood(clock):
    loop, looked = Loop(), []
    items = Sliced(loop, 1.0, looked.append, share=0.5, between=lambda: looked.append("other"))
    for item in range(60):
        items.add(item)
    loop.run()
    assert looked == ["other"], "the flood goes on, and no item was dealt with"
