"""A device's session on a connection in memory: what it sends, and when it is read."""

import asyncio
import json
import random
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from gateway.admission.credential import Identity
from gateway.admission.errors import CredentialError
from gateway.admission.revocation import Revocation, RevocationList
from gateway.edge.device import DeviceHandler
from gateway.edge.device_context import DeviceContext
from gateway.edge.fleet import Fleet
from gateway.edge.observer import EdgeObserver
from gateway.edge.ports import PAUSED_BY_DRAIN, PAUSED_BY_FULL_NODE, PAUSED_BY_RESUME
from gateway.session.credit import CreditPool
from gateway.session.fairness import FairShare
from gateway.session.limits import SessionLimits
from support.waiting import eventually
from tidegate.wire import frames


class Line:
    """Stands for the connection: what was sent, whether it is read, how it ended."""

    congested = False

    def __init__(self):
        self.sent = []
        self.paused = 0
        self.spent = []
        self.ended = None
        self.touched = 0

    @property
    def is_open(self):
        return self.ended is None

    def send_text(self, text):
        self.sent.append(json.loads(text))

    def fail(self, code, reason, _cause):
        self.ended = code, json.loads(reason)

    def close(self, code, reason, _cause):
        self.ended = code, json.loads(reason)

    def spend(self, frames, _size):
        self.spent.append(frames)
        return self.is_open

    def pause_reading(self, reason):
        self.paused |= reason

    def resume_reading(self, reason):
        self.paused &= ~reason

    def touch(self):
        self.touched += 1


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
    def __init__(self):
        self.full = False
        self.stored, self.waiting = [], []

    def store(self, messages, received_at):
        self.stored += messages

    def when_drained(self, callback):
        self.waiting.append(callback)


class Verifier:
    """Credentials are the identities that it was given by name."""

    def __init__(self):
        self.known = {}

    def verify(self, token):
        if token not in self.known:
            raise CredentialError("signature", "wrong")
        return self.known[token]


def identity(device="veh-1", expires_at=2**40):
    return Identity(device, "default", "", urgent=False, jti="", expires_at=expires_at)


class Watch:
    def __init__(self):
        self.fences = iter(range(1, 100))
        self.sessions, self.ends = [], []

    def next_fence(self):
        return next(self.fences)

    def established(self, key, fence):
        self.sessions.append((key, fence))

    def ended(self, key, fence):
        self.ends.append((key, fence))


class Rig:
    def __init__(self):
        self.held = ""
        self.wall = 0.0
        self.results = []
        self.outlet = Outlet()
        self.verifier = Verifier()
        self.stream = Stream()
        self.watch = Watch()
        self.outboxes = []
        self.line = Line()
        self.fleet = Fleet(first_retry_ms_min=2_000, refusals_per_s=1, clock=lambda: 0.0)
        self.revocations = RevocationList(lambda: 0.0)
        self.context = DeviceContext(
            limits=SessionLimits(credit_initial=4),
            verifier=self.verifier,
            fleet=self.fleet,
            open_outlet=self.open_outlet,
            on_result=self.on_result,
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
            wall_clock=lambda: self.wall,
        )
        self.handler = self.open(self.line)

    def open(self, line):
        """The handler of another connection of the device."""
        handler = DeviceHandler(self.context, identity(expires_at=100.0))
        handler.opened(line)
        return handler

    def open_outlet(self, _tenant, _device, outbox, _owner):
        self.outboxes.append(outbox)
        return self.outlet

    def on_result(self, _tenant, _device, result):
        self.results.append(result.id)
        return result.id == "known"

    def enter(self):
        """The device says hello, and one message that is not settled."""
        self.stream.points = {"a": 0}
        self.say(hello("a"))
        self.say({"seq": 1, "type": "t", "data": 1})
        self.hear()

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
    rig.say({"credential": "x"})
    assert rig.line.spent == [1, 5, 20]


async def test_a_hold_that_begins_and_ends_during_a_look_up_is_not_told(rig):
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


async def test_a_device_that_is_revoked_during_its_look_up_is_closed(rig):
    rig.say(hello("a"))
    rig.revocations.add(Revocation(2.0**40, tenant="default", device="veh-1"))
    rig.stream.found.set_result(0)
    await eventually(lambda: rig.line.ended)
    assert rig.line.ended[0] == 4403
    assert rig.hear() == []
    assert rig.watch.sessions == []


# What the node does with a device


async def test_a_device_that_is_sent_away_works_on_until_its_time_is_up(rig):
    rig.enter()
    rig.handler.leave("drain", 1_500, "T", 2.0)
    goaway = {"goaway": {"reason": "drain", "retry_ms": 1_500, "ticket": "T"}}
    assert rig.hear() == [goaway]
    assert rig.handler.deadline - rig.context.loop.time() == pytest.approx(3.5, abs=0.5)
    assert rig.line.touched > 0
    rig.handler.on_deadline(0.0)
    assert rig.hear() == [{"hold": {"reason": "drain"}}]
    assert rig.line.paused == PAUSED_BY_DRAIN
    rig.handler.stored(1)
    assert rig.hear() == [{"ack": 1, "credit": 5}, goaway]
    assert rig.line.ended == (1012, {"error": "drain"})


async def test_a_device_whose_connection_is_closing_is_not_sent_away(rig):
    rig.enter()
    rig.line.ended = (1000, {})
    rig.handler.leave("drain", 1_500, "T", 2.0)
    assert rig.hear() == []


async def test_the_session_of_a_lost_connection_is_found_until_it_is_settled(rig):
    rig.enter()
    rig.handler.closed("lost")
    assert rig.fleet.find("default", "veh-1") is rig.handler
    assert rig.watch.ends == [(("default", "veh-1"), 1)]
    rig.handler.stored(1)
    assert rig.fleet.find("default", "veh-1") is None


async def test_a_connection_without_a_session_is_not_announced(rig):
    rig.handler.closed("lost")
    assert rig.watch.ends == []


async def test_a_greedy_device_is_acknowledged_after_a_rest(rig):
    rig.enter()
    rig.handler._share.greedy = True
    rig.handler.stored(1)
    assert rig.hear() == []
    await eventually(lambda: rig.line.sent)
    assert rig.hear() == [{"ack": 1, "credit": 3}]


async def test_a_rest_ends_with_its_connection(rig):
    rig.enter()
    rig.handler._share.greedy = True
    rig.handler.stored(1)
    resting = rig.handler._resting
    rig.handler.closed("lost")
    assert resting.cancelled()


async def test_a_full_node_is_not_read_until_it_has_room(rig):
    rig.outlet.full = True
    rig.enter()
    assert rig.line.paused == PAUSED_BY_FULL_NODE
    (drained,) = rig.outlet.waiting
    drained()
    assert rig.line.paused == 0
    rig.handler.closed("lost")
    drained()


async def test_a_command_needs_an_established_session_that_reads(rig):
    command = frames.Command("1", "reboot")
    assert not rig.handler.command(command)
    rig.enter()
    assert rig.handler.command(command)
    assert list(rig.hear()[0]) == ["command"]
    rig.line.congested = True
    assert not rig.handler.command(command)
    rig.handler.closed("lost")
    assert not rig.handler.command(command)


async def test_the_result_of_a_command_is_passed_on(rig):
    rig.enter()
    rig.say({"result": {"id": "known", "ok": True}})
    rig.say({"result": {"id": "forgotten", "ok": False}})
    assert rig.results == ["known", "forgotten"]


async def test_a_rejected_message_is_told(rig):
    rig.enter()
    rig.handler.rejected(1, "schema", "no")
    assert rig.hear() == [{"reject": {"seq": 1, "error": "schema", "detail": "no"}}]


async def test_a_binary_message_is_an_offence(rig):
    rig.handler.received_binary(b"")
    assert rig.line.ended == (1003, {"error": "binary", "detail": "frames are JSON text"})


async def test_a_device_without_hello_is_closed_at_its_deadline(rig):
    rig.handler.on_deadline(0.0)
    assert rig.line.ended == (1008, {"error": "hello", "detail": "no hello in time"})


async def test_first_retry_is_told_again_when_the_fleet_has_grown(rig):
    rig.handler.on_keepalive()
    rig.enter()
    rig.handler.on_keepalive()
    assert rig.hear() == []
    for number in range(2):
        rig.fleet.add(SimpleNamespace(key=("default", str(number))))
    rig.handler.on_keepalive()
    assert rig.hear() == [{"notice": {"first_retry_ms": 3_000}}]


# Credentials


async def test_a_credential_is_looked_at_when_it_expires_and_not_before(rig):
    rig.enter()
    until = rig.handler.deadline - rig.context.loop.time()
    assert 99.0 < until < 101.5
    rig.handler.on_deadline(0.0)
    assert rig.line.ended is None, "the wall clock was set back"
    rig.wall = 100.0
    rig.handler.on_deadline(0.0)
    assert rig.line.ended == (4401, {"error": "credential", "detail": "expired"})


async def test_a_fresh_credential_takes_the_place_of_the_old_one(rig):
    rig.enter()
    rig.verifier.known["fresh"] = identity(expires_at=1_000.0)
    rig.say({"credential": "fresh"})
    rig.wall = 500.0
    rig.handler.on_deadline(0.0)
    assert rig.line.ended is None
    assert rig.handler.identity.expires_at == 1_000.0


@pytest.mark.parametrize(
    ("token", "code", "error"),
    [("bad", 4401, "credential"), ("other", 1008, "credential"), ("revoked", 4403, "revoked")],
)
async def test_a_fresh_credential_that_cannot_be_used_ends_the_session(rig, token, code, error):
    rig.enter()
    rig.verifier.known = {"other": identity("veh-2"), "revoked": identity()}
    if token == "revoked":
        rig.revocations.add(Revocation(2.0**40, tenant="default", device="veh-1"))
    rig.say({"credential": token})
    assert (rig.line.ended[0], rig.line.ended[1]["error"]) == (code, error)
