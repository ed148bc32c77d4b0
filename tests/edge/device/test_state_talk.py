"""What a session which asks for its state is sent, and when."""

import pytest

from gateway.edge.ports import PAUSED_BY_RESUME
from gateway.session.desired import Version
from support.device_sessions import Line, Rig, hello
from support.waiting import eventually

KEY = ("default", "veh-1")
EPOCH = f"{5:016x}"


def version(sequence):
    return Version(EPOCH, sequence)


def told(sequence):
    return {"version": f"{EPOCH}-{sequence}", "desired": {"n": sequence}}


def desired(sequence):
    return b'{"n":%d}' % sequence


@pytest.fixture
async def rig():
    rig = Rig()
    rig.stream.points = {"a": 0}
    return rig


def ask(rig, held=""):
    rig.say(hello("a", state=held))


def answer(rig, sequence, *, verified=False):
    _held, hear = rig.states.asked.pop(KEY)
    rig.states.found[KEY] = (version(sequence), desired(sequence))
    hear(*rig.states.found[KEY], verified)


def set_state(rig, sequence, handler=None):
    """The follower delivers a state."""
    rig.states.found[KEY] = (version(sequence), desired(sequence))
    (handler or rig.handler).state_talk.tell(*rig.states.found[KEY])


async def test_a_known_state_is_in_the_welcome_without_a_question(rig):
    rig.states.found[KEY] = (version(3), desired(3))
    ask(rig, f"{EPOCH}-2")
    (welcome,) = rig.hear()
    assert welcome["welcome"]["state"] == told(3)
    assert rig.states.asked == {}
    set_state(rig, 3)
    set_state(rig, 4)
    set_state(rig, 2)
    assert rig.hear() == [{"state": told(4)}]


async def test_a_device_which_does_not_ask_has_no_talk(rig):
    rig.states.found[KEY] = (version(3), desired(3))
    rig.say(hello("a"))
    assert "state" not in rig.hear()[0]["welcome"]
    assert rig.handler.state_talk is None


async def test_the_welcome_waits_for_the_answer_and_nothing_is_read_meanwhile(rig):
    ask(rig)
    assert rig.hear() == []
    assert rig.line.paused == PAUSED_BY_RESUME
    assert rig.handler.deadline == float("inf")
    answer(rig, 3)
    assert rig.hear()[0]["welcome"]["state"] == told(3)
    assert rig.line.paused == 0


async def test_the_welcome_does_not_wait_for_ever_and_a_late_answer_is_a_frame(rig):
    rig.states.wait_s = 0.0
    ask(rig)
    assert rig.hear() == []
    await eventually(lambda: rig.line.sent)
    assert "state" not in rig.hear()[0]["welcome"]
    answer(rig, 3)
    assert rig.hear() == [{"state": told(3)}]


async def test_a_state_that_is_set_while_the_welcome_waits_is_in_it(rig):
    ask(rig)
    set_state(rig, 4)
    assert rig.hear() == []
    _held, hear = rig.states.asked.pop(KEY)
    hear(version(3), desired(3), False)
    assert rig.hear()[0]["welcome"]["state"] == told(4)
    hear(version(3), desired(3), False)
    assert rig.hear() == []


async def test_a_claim_that_the_leader_disproves_gets_the_present_state(rig):
    rig.states.found[KEY] = (version(3), desired(3))
    ask(rig, f"{EPOCH}-900")
    assert rig.states.asked[KEY][0] == version(900)
    answer(rig, 3, verified=True)
    assert rig.hear()[0]["welcome"]["state"] == told(3)


async def test_a_claim_that_is_not_disproved_is_told_nothing_older(rig):
    ask(rig, f"{EPOCH}-9")
    answer(rig, 3)
    assert "state" not in rig.hear()[0]["welcome"]


async def test_a_device_which_does_not_read_gets_the_newest_later(rig):
    rig.states.found[KEY] = (version(1), desired(1))
    ask(rig)
    rig.hear()
    rig.line.congested = True
    for sequence in range(2, 102):
        set_state(rig, sequence)
    assert rig.hear() == []
    rig.line.congested = False
    rig.handler.on_lull()
    assert rig.hear() == [{"state": told(101)}]
    rig.handler.on_lull()
    assert rig.hear() == []


async def test_in_a_stream_made_anew_the_device_is_asked_for_again(rig):
    rig.states.found[KEY] = (version(7), desired(7))
    ask(rig)
    rig.hear()
    later = Version(f"{6:016x}", 1)
    rig.states.found.clear()
    rig.handler.state_talk.enter(later.epoch)
    _held, hear = rig.states.asked.pop(KEY)
    hear(later, b"{}", False)
    assert rig.hear() == [{"state": {"version": str(later), "desired": {}}}]


async def test_a_connection_that_is_gone_waits_for_nothing(rig):
    ask(rig)
    rig.handler.closed("lost", 1006)
    assert rig.states.asked == {}
    second = Line()
    handler = rig.open(second)
    assert handler.state_talk is None
