"""A batch that a runner sends behind the one in flight, over a connection that a test plays."""

import random

import pytest

from gateway import tasks
from gateway.stream.lanes.ahead import EAGER_MESSAGES
from gateway.stream.lanes.backlog import Backlog
from gateway.stream.lanes.batch import Strategy
from gateway.stream.lanes.lane import Lane
from gateway.stream.lanes.limits import PublishLimits
from gateway.stream.lanes.runner import LaneRunner
from gateway.stream.lanes.settlements import Settlements
from gateway.stream.observer import StreamObserver
from support.lanes import Client, Owner, run
from support.waiting import eventually


class Device(Owner):
    def __init__(self, name):
        super().__init__(name)
        self.settled = []

    def stored(self, seq):
        self.settled.append(seq)


class Counting(StreamObserver):
    def __init__(self):
        self.retries = []
        self.took_s = []

    def batch_retried(self, reason, messages):
        self.retries.append((reason, messages))

    def batch_settled(self, kind, messages, duplicates, took_s):
        self.took_s.append(took_s)


class Rig:
    """A runner with a batch of one device in flight, and one of another device behind it."""

    def __init__(self, strategy):
        self.now = 0.0
        self.failures = []
        self.client = Client()
        self.observer = Counting()
        self.backlog = Backlog(messages_max=10_000, bytes_max=10_000_000)
        settlements = Settlements(self.backlog, self.observer)
        self.lane = Lane(
            batch_messages_max=1_000,
            batch_bytes_max=1_000_000,
            duplicate_window_s=120.0,
            dispose=settlements.dispose,
        )
        self.lane.strategy = strategy
        self.runner = LaneRunner(
            self.lane,
            "n",
            inbox="_INBOX.",
            limits=PublishLimits(ack_timeout_s=10.0, retry_s=0.001, retry_max_s=0.002),
            backlog=self.backlog,
            settlements=settlements,
            stored=None,
            crew=tasks.Crew(self.failures.append),
            rng=random.Random(1),
            clock=lambda: self.now,
        )
        self.runner.when_ready(self.client)
        self.first, self.second = Device("a"), Device("b")

    def submit(self, device):
        """As many messages of a device as are worth a write of their own."""
        messages = run(device, 1, EAGER_MESSAGES)
        if self.runner.takes_runs:
            self.runner.submit_run(messages)
        else:
            self.runner.submit(messages.split(), messages.size)

    async def both_sent(self):
        self.submit(self.first)
        await eventually(lambda: self.lane.in_flight is not None, "the first batch")
        self.submit(self.second)

    def answer(self, number, first_at):
        """The answers to a batch, of which all is stored."""
        if self.lane.strategy is Strategy.FAST:
            data = b'{"stream":"EVENTS","seq":%d,"count":%d}' % (first_at, EAGER_MESSAGES)
            self.runner.on_reply(number, 0, data, responders=True)
            return
        for place, seq in ((0, first_at), (EAGER_MESSAGES - 1, first_at + EAGER_MESSAGES - 1)):
            data = b'{"stream":"EVENTS","seq":%d}' % seq
            self.runner.on_reply(number, place, data, responders=True)


@pytest.fixture(params=[Strategy.LINKED, Strategy.FAST])
async def rig(request):
    rig = Rig(request.param)
    yield rig
    rig.runner.close()
    assert rig.failures == []


async def test_the_second_batch_is_written_before_the_first_is_answered(rig):
    await rig.both_sent()
    payloads = [int(payload) for *_, payload in rig.client.commands]
    assert payloads == list(range(1, 1 + EAGER_MESSAGES)) * 2
    numbers = [reply.split(b".")[1] for _, reply, _, _ in rig.client.commands if reply]
    assert sorted(set(numbers)) == [b"n-1", b"n-2"]
    assert numbers == sorted(numbers)
    rig.answer(1, 1)
    assert (rig.first.settled, rig.second.settled) == ([EAGER_MESSAGES], [])
    rig.answer(2, 1 + EAGER_MESSAGES)
    assert rig.second.settled == [EAGER_MESSAGES]
    assert (rig.backlog.messages, len(rig.lane)) == (0, 0)


async def test_the_time_of_a_batch_begins_when_the_one_before_it_has_landed(rig):
    await rig.both_sent()
    rig.now = 2.0
    rig.answer(1, 1)
    rig.now = 3.0
    rig.answer(2, 1 + EAGER_MESSAGES)
    assert rig.observer.took_s == [2.0, 1.0]


async def test_an_answer_that_comes_early_waits_for_the_one_before_it(rig):
    await rig.both_sent()
    rig.answer(2, 1 + EAGER_MESSAGES)
    assert rig.second.settled == []
    rig.answer(1, 1)
    assert (rig.first.settled, rig.second.settled) == ([EAGER_MESSAGES], [EAGER_MESSAGES])
    assert len(rig.lane) == 0


async def test_both_batches_are_repeated_after_a_lost_connection(rig):
    await rig.both_sent()
    rig.runner.when_down()
    assert rig.observer.retries == [("disconnected", EAGER_MESSAGES)] * 2
    assert (rig.lane.in_flight, rig.lane.waiting) == (None, 2 * EAGER_MESSAGES)


async def test_a_batch_that_could_not_be_written_is_repeated_when_its_time_comes(rig):
    rig.submit(rig.first)
    await eventually(lambda: rig.lane.in_flight is not None, "the first batch")
    rig.client.connected = False
    rig.submit(rig.second)
    rig.answer(1, 1)
    assert rig.first.settled == [EAGER_MESSAGES]
    assert rig.observer.retries == [("disconnected", EAGER_MESSAGES)]
    rig.client.connected = True
    await eventually(lambda: len(rig.client.commands) > EAGER_MESSAGES, "the repeat")


async def test_a_third_batch_is_sent_when_the_first_has_landed(rig):
    await rig.both_sent()
    third = Device("c")
    rig.submit(third)
    assert len(rig.client.commands) == 2 * EAGER_MESSAGES
    rig.answer(1, 1)
    assert len(rig.client.commands) == 3 * EAGER_MESSAGES
    rig.answer(2, 1 + EAGER_MESSAGES)
    rig.answer(3, 1 + 2 * EAGER_MESSAGES)
    assert third.settled == [EAGER_MESSAGES]
