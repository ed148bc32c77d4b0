"""A device's session on a connection in memory: what it sends, and when it is read."""

from types import SimpleNamespace

import pytest

from gateway.edge.ports import PAUSED_BY_DRAIN, PAUSED_BY_FULL_NODE
from support.device_sessions import Rig
from support.waiting import eventually
from tidegate.wire import frames


@pytest.fixture
async def rig():
    return Rig()


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
    rig.handler.closed("lost", 1006)
    assert rig.fleet.find("default", "veh-1") is rig.handler
    assert rig.watch.ends == [(("default", "veh-1"), 1, "lost")]
    rig.handler.stored(1)
    assert rig.fleet.find("default", "veh-1") is None


async def test_a_connection_without_a_session_is_not_announced(rig):
    rig.handler.closed("lost", 1006)
    assert rig.watch.ends == []


async def test_a_greedy_device_is_acknowledged_after_a_rest(rig):
    rig.context.fairness.limit = 0
    rig.enter()
    rig.handler.stored(1)
    assert rig.hear() == []
    await eventually(lambda: rig.line.sent)
    assert rig.hear() == [{"ack": 1, "credit": 3}]


async def test_a_rest_ends_with_its_connection(rig):
    rig.context.fairness.limit = 0
    rig.enter()
    rig.handler.stored(1)
    resting = rig.handler._resting
    rig.handler.closed("lost", 1006)
    assert resting.cancelled()


async def test_a_full_node_is_not_read_until_it_has_room(rig):
    rig.outlet.full = True
    rig.enter()
    assert rig.line.paused == PAUSED_BY_FULL_NODE
    (drained,) = rig.outlet.waiting
    drained()
    assert rig.line.paused == 0
    rig.handler.closed("lost", 1006)
    drained()


async def test_a_command_needs_an_established_session_that_reads(rig):
    command = frames.Command("1", "reboot")
    assert not rig.handler.command(command)
    rig.enter()
    assert rig.handler.command(command)
    assert list(rig.hear()[0]) == ["command"]
    rig.line.congested = True
    assert not rig.handler.command(command)
    rig.handler.closed("lost", 1006)
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
    rig.handler.on_lull()
    rig.enter()
    rig.handler.on_lull()
    assert rig.hear() == []
    for number in range(2):
        rig.fleet.add(SimpleNamespace(key=("default", str(number))))
    rig.handler.on_lull()
    assert rig.hear() == [{"notice": {"first_retry_ms": 3_000}}]
