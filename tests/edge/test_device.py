"""A device's session on a connection in memory: what it sends, and when it is read."""

import asyncio
import json
import random
from collections.abc import Iterator

import pytest

from gateway.admission.credential import Identity
from gateway.admission.revocation import Revocation, RevocationList
from gateway.edge.connection import PAUSED_BY_RESUME
from gateway.edge.device import DeviceContext, DeviceHandler
from gateway.edge.fleet import Fleet
from gateway.edge.observer import EdgeObserver
from gateway.session.credit import CreditPool
from gateway.session.fairness import FairShare
from gateway.session.machine import SessionLimits
from support.waiting import eventually


class Line:
    """Stands for the connection: what was sent, whether it is read, how it ended."""

    congested = False

    def __init__(self):
        self.sent = []
        self.paused = 0
        self.spent = []
        self.ended = None

    @property
    def is_open(self):
        return self.ended is None

    def send_text(self, text):
        self.sent.append(json.loads(text))

    def fail(self, code, reason, _cause):
        self.ended = code, json.loads(reason)

    def spend(self, frames, _size):
        self.spent.append(frames)
        return self.is_open

    def pause_reading(self, reason):
        self.paused |= reason

    def resume_reading(self, reason):
        self.paused &= ~reason

    def touch(self):
        pass


class Stream:
    """Stands for the stream: `points` are known at once, others when they are `found`."""

    def __init__(self):
        self.points = {}
        self.asked = []
        self.found = asyncio.get_running_loop().create_future()

    def known(self, _tenant, _device, hello):
        return self.points.get(hello.outbox)

    async def look_up(self, _tenant, _device, hello):
        self.asked.append(hello.outbox)
        return await self.found


class Outlet:
    full = False

    def store(self, messages, received_at):
        pass


class Watch:
    def __init__(self):
        self.fences = iter(range(1, 100))
        self.sessions = []

    def next_fence(self):
        return next(self.fences)

    def established(self, key, fence):
        self.sessions.append((key, fence))

    def ended(self, key, fence):
        pass


class Rig:
    def __init__(self):
        self.held = ""
        self.stream = Stream()
        self.watch = Watch()
        self.outboxes = []
        self.line = Line()
        self.fleet = Fleet(first_retry_ms_min=2_000, refusals_per_s=1_000, clock=lambda: 0.0)
        self.revocations = RevocationList(lambda: 0.0)
        self.context = DeviceContext(
            limits=SessionLimits(credit_initial=4),
            verifier=None,
            fleet=self.fleet,
            open_outlet=self.open_outlet,
            on_result=lambda *_: True,
            observer=EdgeObserver(),
            rng=random.Random(1),
            loop=asyncio.get_running_loop(),
            hello_timeout_s=10,
            credential_leeway_s=1,
            keepalive_ms=30_000,
            revocations=self.revocations,
            watch=self.watch,
            pool=CreditPool(maximum=256, budget_bytes=2**30),
            fairness=FairShare(),
            credit_greedy=1,
            backlog=lambda: 0.0,
            held=lambda: self.held,
            resume_points=self.stream,
        )
        self.handler = self.open(self.line)

    def open(self, line):
        """The handler of another connection of the device."""
        identity = Identity("veh-1", "default", "", urgent=False, jti="", expires_at=2**40)
        handler = DeviceHandler(self.context, identity)
        handler.opened(line)
        return handler

    def open_outlet(self, _tenant, _device, outbox, _owner):
        self.outboxes.append(outbox)
        return Outlet()

    def say(self, frame):
        self.handler.received_text(json.dumps(frame).encode())

    def hear(self):
        heard, self.line.sent = self.line.sent, []
        return heard


def hello(outbox, oldest=1):
    return {"hello": {"outbox": outbox, "oldest": oldest}}


@pytest.fixture
async def rig() -> Iterator[Rig]:
    return Rig()


async def test_what_is_known_is_answered_at_once(rig):
    rig.stream.points = {"a": 6}
    rig.say(hello("a", oldest=3))
    (frame,) = rig.hear()
    assert frame["welcome"]["resume"] == {"outbox": "a", "seq": 6}
    assert rig.stream.asked == []


async def test_nothing_is_read_until_the_look_up_is_answered(rig):
    rig.say(hello("a"))
    assert rig.line.paused == PAUSED_BY_RESUME
    assert rig.hear() == []
    rig.stream.found.set_result(41)
    await eventually(lambda: not rig.line.paused)
    assert rig.hear()[0]["welcome"]["resume"]["seq"] == 41


async def test_a_further_hello_is_answered_by_resume_without_being_a_new_session(rig):
    rig.stream.points = {"a": 0}
    rig.say(hello("a"))
    rig.hear()
    rig.say(hello("b"))
    assert rig.line.paused == PAUSED_BY_RESUME
    rig.stream.found.set_result(9)
    await eventually(lambda: not rig.line.paused)
    assert rig.hear() == [{"resume": {"outbox": "b", "seq": 9}, "credit": 4}]
    assert rig.outboxes == ["a", "b"]
    assert len(rig.watch.sessions) == 1
    rig.say({"seq": 10, "type": "t", "data": 1})
    rig.handler.stored(10)
    assert rig.hear() == [{"ack": 10, "credit": 5}]


async def test_what_is_no_message_is_on_the_budget_of_the_connection(rig):
    rig.stream.points = {"a": 0, "b": 0}
    rig.say(hello("a"))
    rig.say({"seq": 1, "type": "t", "data": 1})
    rig.handler.stored(1)
    assert rig.line.spent == []
    rig.say({"result": {"id": "1", "ok": True}})
    rig.say(hello("b"))
    with pytest.raises(AttributeError):  # there is no verifier in this rig
        rig.say({"credential": "x"})
    assert rig.line.spent == [1, 5, 20]


async def test_a_hold_that_came_and_went_during_a_look_up_is_never_heard_of(rig):
    rig.say(hello("a"))
    rig.handler.hold("stream")
    rig.handler.release()
    rig.stream.found.set_result(0)
    await eventually(lambda: not rig.line.paused)
    assert list(rig.hear()[0]) == ["welcome"]
    rig.handler.release()
    assert rig.hear() == []
    for seq in range(1, 5):
        rig.say({"seq": seq, "type": "t", "data": 1})
    rig.handler.stored(4)
    assert rig.hear() == [{"ack": 4, "credit": 8}]


async def test_a_hold_in_force_follows_the_answer(rig):
    rig.stream.points = {"a": 0, "b": 5}
    rig.held = "stream"
    rig.say(hello("a"))
    assert [next(iter(frame)) for frame in rig.hear()] == ["welcome", "hold"]
    rig.say(hello("b"))
    assert [next(iter(frame)) for frame in rig.hear()] == ["resume", "hold"]
    rig.handler.release()
    assert rig.hear() == [{"ack": 5, "credit": 4}]


async def test_a_look_up_that_fails_ends_the_session_with_a_reason(rig):
    rig.say(hello("a"))
    rig.stream.found.set_exception(ValueError("a bug"))
    await eventually(lambda: rig.line.ended)
    code, reason = rig.line.ended
    assert (code, reason["error"]) == (1011, "internal")


async def test_a_look_up_ends_with_its_connection(rig):
    rig.say(hello("a"))
    await eventually(lambda: rig.stream.asked)
    rig.handler.closed("lost")
    await eventually(rig.stream.found.cancelled)
    assert rig.hear() == []


async def test_the_session_before_is_served_until_the_new_one_has_its_welcome(rig):
    rig.stream.points = {"a": 0}
    rig.say(hello("a"))
    newer = Line()
    handler = rig.open(newer)
    handler.received_text(json.dumps(hello("b")).encode())
    await eventually(lambda: rig.stream.asked)
    assert rig.line.is_open
    assert len(rig.watch.sessions) == 1
    rig.stream.found.set_result(0)
    await eventually(lambda: newer.sent)
    assert rig.line.ended[0] == 4409
    assert rig.handler.superseded
    assert rig.watch.sessions == [(("default", "veh-1"), 1), (("default", "veh-1"), 2)]


async def test_of_two_connections_the_one_that_said_hello_last_stays(rig):
    rig.say(hello("a"))
    newer = Line()
    rig.stream.points = {"b": 0}
    rig.open(newer).received_text(json.dumps(hello("b")).encode())
    assert list(newer.sent[0]) == ["welcome"]
    rig.stream.found.set_result(0)
    await eventually(lambda: rig.line.ended)
    assert rig.line.ended[0] == 4409
    assert rig.hear() == []
    assert newer.is_open
    assert len(rig.watch.sessions) == 1


async def test_a_device_that_is_revoked_during_its_look_up_is_not_let_in(rig):
    rig.say(hello("a"))
    rig.revocations.add(Revocation(2.0**40, tenant="default", device="veh-1"))
    rig.stream.found.set_result(0)
    await eventually(lambda: rig.line.ended)
    assert rig.line.ended[0] == 4403
    assert rig.hear() == []
    assert rig.watch.sessions == []
