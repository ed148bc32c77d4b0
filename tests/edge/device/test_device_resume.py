"""Where a session goes on: what is known, looked up, or asked for by a further hello."""

import json

import pytest

from gateway.admission.revocation import Revocation
from gateway.edge.ports import PAUSED_BY_RESUME
from support.device_sessions import Line, Rig, hello
from support.waiting import eventually


@pytest.fixture
async def rig():
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
    rig.handler.closed("lost", 1006)
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
