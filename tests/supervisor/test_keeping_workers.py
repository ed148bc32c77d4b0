"""Workers kept running, replaced and ended, with processes that are played."""

import asyncio
import random

import pytest

from gateway.supervisor.errors import WorkerCannotStart, WorkerGivenUp
from gateway.supervisor.restarts import AT_ONCE_S, DEATHS_MAX, RestartPolicy
from gateway.supervisor.workers import Worker, Workers
from support.waiting import eventually, within


class AtOnce(random.Random):
    def uniform(self, a, b):
        del a, b
        return 0.0


class Process:
    """Ends when it is told to, or with `die`."""

    def __init__(self, number, *, listens=True):
        self.pid = number
        self.listening, self.serving = asyncio.Event(), asyncio.Event()
        self.reason, self.stopping, self.stops = "", False, []
        self._listens = listens
        self._status = None
        self._ended = asyncio.Event()

    @property
    def alive(self):
        return self._status is None

    async def start(self):
        if self._listens:
            self.listening.set()
            self.serving.set()

    async def wait(self):
        await self._ended.wait()
        return self._status

    async def end(self):
        self.die(0)

    def stop(self, leaving, *, now):
        self.stopping = True
        self.stops.append((leaving, now))
        self.die(0)

    def die(self, status):
        self._status = status
        self._ended.set()


class Played:
    """Workers, each with all the processes that it has had."""

    def __init__(self, count=2, *, listens=True):
        self.now = 0.0
        self.made = {number: [] for number in range(1, count + 1)}
        self.listens = listens
        self.failures, self.ended = [], []
        made = [
            Worker(
                number,
                self.make,
                policy=RestartPolicy(AtOnce()),
                on_end=self.ended.append,
                clock=lambda: self.now,
            )
            for number in self.made
        ]
        self.workers = Workers(made, on_failure=self.failures.append)

    def make(self, number):
        process = Process(number, listens=self.listens)
        self.made[number].append(process)
        return process


@pytest.fixture
async def played():
    made = Played()
    await within(made.workers.start())
    yield made
    await within(made.workers.stop())


async def test_a_worker_that_dies_is_followed_by_another_process(played):
    played.now += AT_ONCE_S
    played.made[1][0].die(-9)
    await eventually(lambda: len(played.made[1]) == 2)
    assert len(played.made[2]) == 1
    assert played.ended == [1]
    assert [worker.restarts for worker in played.workers] == [1, 0]
    await eventually(lambda: len(played.workers.serving) == 2)


async def test_a_worker_that_dies_at_once_again_and_again_is_given_up(played):
    for times in range(1, DEATHS_MAX + 1):
        await eventually(lambda times=times: len(played.made[1]) == times)
        played.made[1][-1].reason = "no memory"
        played.made[1][-1].die(1)
    await eventually(lambda: played.failures)
    (failure,) = played.failures
    assert isinstance(failure, WorkerGivenUp)
    assert str(failure) == "worker 1 dies again and again: no memory"


async def test_a_worker_whose_first_start_fails_is_not_tried_again():
    played = Played(listens=False)
    starting = asyncio.create_task(played.workers.start())
    played.made[2][0].reason = "keys.json: not JSON"
    played.made[2][0].die(1)
    await within(starting)
    (failure,) = played.failures
    assert isinstance(failure, WorkerCannotStart)
    assert str(failure) == "worker 2 cannot start: keys.json: not JSON"
    await within(played.workers.stop())


async def test_a_rolling_restart_replaces_one_after_the_other(played):
    assert played.workers.restart_rolling()
    assert not played.workers.restart_rolling()
    await eventually(lambda: not played.workers.rolling)
    assert {number: len(made) for number, made in played.made.items()} == {1: 2, 2: 2}
    assert [made[0].stops for made in played.made.values()] == [[(0, False)], [(0, False)]]
    assert [worker.restarts for worker in played.workers] == [0, 0]


async def test_a_rolling_restart_leaves_the_others_while_a_new_worker_does_not_serve(played):
    played.listens = False
    assert played.workers.restart_rolling()
    await eventually(lambda: len(played.made[1]) == 2)
    await eventually(lambda: played.made[1][1].alive)
    assert played.workers.rolling
    assert len(played.made[2]) == 1


async def test_a_drain_of_all_tells_each_how_many_leave_with_it(played):
    await within(played.workers.run())
    assert [made[0].stops for made in played.made.values()] == [[(1, False)], [(1, False)]]
    assert not any(worker.process.alive for worker in played.workers)
    assert played.failures == []
