"""Which session takes its next step: bounds, pace, and answers before deliveries."""

import asyncio
import random

import pytest

from gateway.stream.errors import StoreAway
from gateway.stream.queue import dispatch as dispatch_module
from gateway.stream.queue.dispatch import Dispatch, Pace
from gateway.stream.queue.index import QueueIndex, Waiting
from gateway.stream.queue.line import ANSWERS_MAX, InFlight, QueueObserver
from gateway.stream.queue.status import Status
from support.waiting import eventually
from tidegate.wire import frames

STEPS_MAX = 32


class Seat:
    def __init__(self, fence=1, *, receipts=True):
        self.fence = fence
        self.receipts = receipts
        self.takes_commands = True


class Turns:
    """Steps that last until they are released."""

    def __init__(self, index):
        self.index = index
        self.open = asyncio.Event()
        self.open.set()
        self.steps = []
        self.running = self.most = 0
        self.failures = 0

    def next(self, line):
        return self.index.next(line.key, line.given) if line.alive and not line.given else None

    async def _step(self, what, line):
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.open.wait()
            if self.failures:
                self.failures -= 1
                raise StoreAway
            self.steps.append((what, line.key[1]))
        finally:
            self.running -= 1

    async def answer(self, line):
        await self._step("answer", line)
        line.answers.popleft()

    async def give(self, line):
        await self._step("give", line)
        waiting = self.index.next(line.key, ())
        line.given[waiting.id] = InFlight(waiting.seq, 1, Status.SENT)

    async def lost(self, line):
        await self._step("lost", line)
        line.given.clear()


class Observer(QueueObserver):
    def __init__(self):
        self.ignoring = []

    def ignored(self, what):
        self.ignoring.append(what)


class Rig:
    def __init__(self, *, per_s=1e9):
        self.index = QueueIndex()
        self.turns = Turns(self.index)
        self.seats = {}
        self.per_s = per_s
        self.room = True
        self.observer = Observer()
        self.failures = []
        self.dispatch = Dispatch(
            self.turns,
            self.index,
            self,
            Pace(lambda: self.per_s, lambda: self.room),
            observer=self.observer,
            rng=random.Random(1),
            on_failure=self.failures.append,
        )
        self.task = asyncio.create_task(self.dispatch.run())

    def seat(self, key):
        return self.seats.get(key)

    def connect(self, number, **options):
        key = ("default", f"veh-{number}")
        self.seats[key] = Seat(**options)
        self.dispatch.established(key, self.seats[key].fence)
        return key

    def queue(self, number, seq):
        key = ("default", f"veh-{number}")
        self.index.add(key, Waiting(seq, f"c-{seq}", 1e9))
        self.dispatch.arrived(key)

    async def close(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        assert self.failures == []


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(dispatch_module, "_AGAIN_S", (0.0, 0.001))
    monkeypatch.setattr(dispatch_module, "_LOOK_S", 0.001)


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


async def test_so_many_steps_run_at_once_and_no_more():
    rig = Rig()
    rig.turns.open.clear()
    for number in range(3 * STEPS_MAX):
        rig.connect(number)
        rig.queue(number, number + 1)
    await settle()
    assert rig.turns.running == STEPS_MAX
    rig.turns.open.set()
    await eventually(lambda: len(rig.turns.steps) == 3 * STEPS_MAX)
    assert rig.turns.most == STEPS_MAX
    await rig.close()


async def test_nothing_is_delivered_while_messages_leave_no_room_but_answers_are_stored():
    rig = Rig()
    rig.room = False
    key = rig.connect(1)
    rig.connect(2)
    rig.queue(2, 1)
    assert rig.dispatch.answered(key, frames.Result("c-9", True))
    await eventually(lambda: rig.turns.steps)
    await settle()
    assert rig.turns.steps == [("answer", "veh-1")]
    rig.room = True
    await eventually(lambda: len(rig.turns.steps) == 2)
    await rig.close()


async def test_deliveries_are_paced():
    rig = Rig(per_s=100.0)
    began = asyncio.get_running_loop().time()
    for number in range(20):
        rig.connect(number)
        rig.queue(number, number + 1)
    await eventually(lambda: len(rig.turns.steps) == 20)
    assert asyncio.get_running_loop().time() - began >= 0.15
    await rig.close()


async def test_the_pace_of_deliveries_may_change_at_any_time():
    rig = Rig()
    for number in range(9):
        rig.connect(number)
    for number in range(3):
        rig.queue(number, number + 1)
    await eventually(lambda: len(rig.turns.steps) == 3)
    rig.per_s = 0.001
    for number in range(3, 9):
        rig.queue(number, number + 1)
    await eventually(lambda: len(rig.turns.steps) > 3)
    await settle()
    assert len(rig.turns.steps) <= 5  # one is due at once, and the next one within the burst
    await rig.close()


async def test_answers_of_one_session_are_bounded():
    rig = Rig()
    rig.turns.open.clear()
    key = rig.connect(1)
    for number in range(ANSWERS_MAX + 50):
        assert rig.dispatch.answered(key, frames.Result(f"c-{number}", True))
    assert rig.observer.ignoring == ["flood"] * 50
    rig.turns.open.set()
    await eventually(lambda: len(rig.turns.steps) == ANSWERS_MAX)
    assert len(rig.dispatch) == 0  # nothing is kept of a session that is done
    await rig.close()


async def test_an_answer_without_receipts_counts_only_for_a_command_that_was_given():
    rig = Rig()
    key = rig.connect(1, receipts=False)
    assert not rig.dispatch.answered(key, frames.Result("c-1", True))
    rig.queue(1, 1)
    await eventually(lambda: rig.turns.steps)
    await settle()
    assert not rig.dispatch.answered(key, frames.Result("c-2", True))
    assert rig.dispatch.answered(key, frames.Result("c-1", True))
    await rig.close()


async def test_a_step_that_fails_is_taken_again():
    rig = Rig()
    rig.turns.failures = 3
    rig.connect(1)
    rig.queue(1, 1)
    await eventually(lambda: rig.turns.steps == [("give", "veh-1")])
    await rig.close()


async def test_a_busy_device_is_tried_again():
    rig = Rig()
    key = rig.connect(1)
    rig.seats[key].takes_commands = False
    rig.queue(1, 1)
    await settle()
    assert rig.turns.steps == []
    rig.seats[key].takes_commands = True
    await eventually(lambda: rig.turns.steps)
    await rig.close()


async def test_a_newer_session_waits_until_the_facts_of_the_one_before_are_stored():
    rig = Rig()
    key = rig.connect(1, receipts=False)
    rig.queue(1, 1)
    await eventually(lambda: rig.turns.steps)
    rig.turns.open.clear()
    rig.connect(1, receipts=False, fence=2)
    rig.dispatch.ended(key, 1)
    await settle()
    assert rig.turns.running == 1  # what the older session owes
    rig.turns.open.set()
    await eventually(lambda: len(rig.turns.steps) == 3)
    assert rig.turns.steps[1:] == [("lost", "veh-1"), ("give", "veh-1")]
    await rig.close()


async def test_a_session_holds_what_it_was_given_until_it_is_released():
    rig = Rig()
    key = ("default", "veh-1")
    assert not rig.dispatch.holds(key, "c-7"), "the device is not here"
    rig.connect(1)
    rig.queue(1, 7)
    await eventually(lambda: rig.dispatch.holds(key, "c-7"))
    assert not rig.dispatch.holds(key, "c-8")
    rig.dispatch.release(key, "c-7")
    assert not rig.dispatch.holds(key, "c-7")
    await rig.close()
