"""One lane over a connection that a test plays."""

import asyncio
import random

import pytest

from gateway import tasks
from gateway.stream.lanes.backlog import Backlog
from gateway.stream.lanes.batch import Pending, Strategy
from gateway.stream.lanes.encoding import SourceHeaders
from gateway.stream.lanes.lane import Lane
from gateway.stream.lanes.limits import PublishLimits
from gateway.stream.lanes.runner import LaneRunner
from gateway.stream.lanes.settlements import Settlements
from gateway.stream.lanes.standing import Standing
from gateway.stream.observer import StreamObserver
from support.lanes import Client
from support.waiting import eventually

STORED = b'{"stream":"EVENTS","seq":1}'
SOURCE = SourceHeaders("t", "d", "o")


class Owner:
    superseded = False

    def __init__(self):
        self.settled = []

    def stored(self, seq):
        self.settled.append(seq)


class Counting(StreamObserver):
    def __init__(self):
        self.retries = []

    def batch_retried(self, reason, messages):
        self.retries.append((reason, messages))


class Stored:
    """A stream in which nothing is stored yet."""

    async def last_seq(self, *_key):
        return 0, 1_000.0


class Rig:
    def __init__(self):
        self.now = 0.0
        self.failures = []
        self.client = Client()
        self.owner = Owner()
        self.observer = Counting()
        self.backlog = Backlog(messages_max=100, bytes_max=10_000)
        self.standing = Standing(("t", "d", "o"), 120.0)
        settlements = Settlements(self.backlog, self.observer)
        limits = PublishLimits(ack_timeout_s=10.0, retry_s=0.001, retry_max_s=0.002)
        lane = Lane(
            batch_messages_max=100,
            batch_bytes_max=100_000,
            duplicate_window_s=120.0,
            dispose=settlements.dispose,
        )
        lane.strategy = Strategy.PLAIN
        self.runner = LaneRunner(
            lane,
            "node-0",
            inbox="_INBOX.",
            limits=limits,
            backlog=self.backlog,
            settlements=settlements,
            stored=Stored(),
            crew=tasks.Crew(self.failures.append),
            rng=random.Random(1),
            clock=lambda: self.now,
        )

    def submit(self, seq, absent_at=0.0):
        event = SOURCE.event(seq, "a", "2026-11-23T10:00:00Z", b"{}")
        item = Pending(self.owner, self.standing, seq, event, event.size, absent_at)
        self.runner.submit([item], item.size)

    async def published(self, count):
        await eventually(lambda: len(self.client.commands) >= count, f"{count} published")

    def answer(self, number, data=STORED, *, responders=True):
        self.runner.on_reply(number, 0, data, responders=responders)


@pytest.fixture
async def rig():
    rig = Rig()
    yield rig
    rig.runner.close()
    assert rig.failures == []


async def test_a_message_waits_for_the_connection_and_is_settled_by_its_answer(rig):
    rig.submit(1)
    await asyncio.sleep(0)
    assert rig.client.commands == []
    rig.runner.when_ready(rig.client)
    ((subject, reply, _headers, _payload),) = rig.client.commands
    assert (subject, reply) == (b"events.t.d.a", b"_INBOX.node-0-1")
    rig.answer(1)
    assert rig.owner.settled == [1]
    assert (rig.backlog.messages, rig.backlog.bytes) == (0, 0)


async def test_an_answer_to_an_older_batch_settles_nothing(rig):
    rig.runner.when_ready(rig.client)
    rig.submit(1)
    await rig.published(1)
    rig.answer(99)
    assert rig.owner.settled == []


async def test_what_is_in_flight_when_the_connection_is_lost_is_sent_on_the_next_one(rig):
    rig.runner.when_ready(rig.client)
    rig.submit(1)
    await rig.published(1)
    rig.runner.when_down()
    assert rig.observer.retries == [("disconnected", 1)]
    rig.runner.when_ready(rig.client)
    await rig.published(2)
    assert rig.client.commands[0][2] == rig.client.commands[1][2], "under the same id"


async def test_a_write_that_fails_is_repeated(rig):
    rig.client.connected = False
    rig.runner.when_ready(rig.client)
    rig.submit(1)
    await eventually(lambda: ("disconnected", 1) in rig.observer.retries)
    rig.client.connected = True
    await rig.published(1)


async def test_a_stream_that_nobody_listens_for_is_a_reason_to_repeat(rig):
    rig.runner.when_ready(rig.client)
    rig.submit(1)
    await rig.published(1)
    rig.answer(1, b"", responders=False)
    await rig.published(2)
    assert rig.observer.retries == [("no_responders", 1)]


async def test_a_message_in_doubt_is_looked_up_before_it_is_published(rig):
    rig.now = 1_000.0
    rig.runner.when_ready(rig.client)
    rig.submit(1, absent_at=0.0)
    await rig.published(1)
    assert rig.observer.retries == [("absent", 1)]


async def test_a_message_of_a_quiet_lane_is_written_as_it_comes_and_settled_as_its_answer_comes(
    rig,
):
    rig.runner.when_ready(rig.client)
    rig.submit(1)
    assert rig.client.commands == [], "others may come in this turn"
    await rig.published(1)
    rig.answer(1)
    rig.submit(2)
    assert len(rig.client.commands) == 2, "in the same turn"
    rig.answer(2)
    assert rig.owner.settled == [1, 2]
    assert (rig.backlog.messages, rig.backlog.bytes) == (0, 0)


async def test_a_quiet_lane_repeats_what_is_not_answered(rig):
    rig.runner.when_ready(rig.client)
    rig.submit(1)
    await rig.published(1)
    rig.answer(1)
    rig.submit(2)
    rig.answer(2, b"", responders=False)
    assert rig.owner.settled == [1]
    await rig.published(3)
    assert rig.client.commands[1][2] == rig.client.commands[2][2], "under the same id"
    rig.answer(3)
    assert rig.owner.settled == [1, 2]


class Times:
    atomic_min = 16

    def __init__(self):
        self.taken = []

    def took(self, batch, took_s):
        self.taken.append((batch.messages, took_s))


async def test_the_lane_learns_how_long_what_was_stored_took_and_not_what_was_repeated(rig):
    lane = rig.runner.lane
    lane.strategy, lane.method.times = Strategy.ATOMIC, Times()
    rig.runner.when_ready(rig.client)
    rig.submit(1)
    rig.submit(2)
    await rig.published(2)
    rig.now = 3.0
    rig.answer(1, b"", responders=False)
    await rig.published(4)
    assert lane.method.times.taken == []
    rig.now = 3.5
    rig.answer(2, b'{"stream":"EVENTS","seq":2,"batch":"node-0-2","count":2}')
    assert rig.owner.settled == [2]
    assert lane.method.times.taken == [(2, 0.5)]
