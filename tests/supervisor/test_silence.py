"""When a worker that lives but does not answer is ended."""

import asyncio

import pytest

from gateway.supervisor.silence import START_S, UNANSWERED_MAX, Silence
from gateway.supervisor.snapshots import WorkerSnapshots
from gateway.supervisor.worker_client import WorkerSilent


def test_only_questions_in_a_row_count():
    silence = Silence(0.0)
    for _ in range(2):
        assert [silence.unanswered() for _ in range(UNANSWERED_MAX - 1)] == [""] * 7
        silence.answered()
    for _ in range(UNANSWERED_MAX - 1):
        silence.unanswered()
    assert silence.unanswered() == "it hung: it left 8 questions in a row without an answer"


def test_a_process_that_does_not_come_up_is_ended_after_a_time():
    silence = Silence(5.0)
    assert silence.starting(5.0 + START_S - 0.1) == ""
    assert silence.starting(5.0 + START_S) == "it hung: it was not up 120 s after its start"


class Process:
    alive, stopping = True, False

    def __init__(self, *, up=True):
        self.listening = asyncio.Event()
        if up:
            self.listening.set()
        self.killed = []
        self.hangs = False

    def kill(self, reason):
        self.killed.append(reason)

    async def look(self):
        """It answers while `hangs` is false."""
        if self.hangs:
            raise WorkerSilent("no answer")
        return {"of": id(self)}


class Worker:
    def __init__(self, number, **options):
        self.number = number
        self.process = Process(**options)


class Played:
    def __init__(self, *workers):
        self.now = 0.0
        self.workers = workers
        self.snapshots = WorkerSnapshots(workers, clock=lambda: self.now)

    async def seconds(self, count):
        for _ in range(count):
            await self.snapshots.step()


async def test_a_worker_that_hangs_is_ended_and_its_successor_is_asked_anew():
    hung, well = Worker(1), Worker(2)
    played = Played(hung, well)
    await played.seconds(1)
    assert played.snapshots.found == {
        each.number: {"of": id(each.process)} for each in (hung, well)
    }
    hung.process.hangs = True
    await played.seconds(UNANSWERED_MAX - 1)
    assert played.snapshots.found == {2: {"of": id(well.process)}}
    assert hung.process.killed == []
    await played.seconds(1)
    (reason,) = hung.process.killed
    assert reason.startswith("it hung")
    hung.process = Process()
    await played.seconds(UNANSWERED_MAX - 1)
    assert hung.process.killed == well.process.killed == []


async def test_a_worker_that_never_comes_up_is_ended():
    worker = Worker(1, up=False)
    played = Played(worker)
    await played.seconds(UNANSWERED_MAX + 1)
    assert worker.process.killed == []
    played.now = START_S
    await played.seconds(1)
    assert worker.process.killed


@pytest.mark.parametrize("state", [{"stopping": True}, {"alive": False}])
async def test_a_worker_that_drains_or_has_ended_may_be_silent(state):
    worker = Worker(1)
    worker.process.hangs = True
    vars(worker.process).update(state)
    played = Played(worker)
    await played.seconds(UNANSWERED_MAX + 1)
    assert worker.process.killed == []
