"""Every input of a session in every state and departure."""

import pytest

from gateway.session.errors import PolicyViolation, TakenOver
from gateway.session.machine import Session
from gateway.session.outputs import Close, Forget, Send, StopReading, Wake, WatchExpiry
from gateway.session.regions import Departure, Settled, State
from support.sessions import LIMITS, encoded, greeted, hello, offence
from tidegate.wire import frames

# The table: every input in every state and departure. A session is made by the inputs that lead
# there; `unsettled` and `resting` are what decides between two outputs of one input.

GOAWAY = frames.Goaway("drain", 1_500, "T")
GOODBYE = (Send(b'{"goaway":{"reason":"drain","retry_ms":1500,"ticket":"T"}}'), Close("drain"))


def greeting():
    return Session(LIMITS)


def resuming():
    session = greeting()
    session.receive(hello())
    return session


def established():
    return greeted()


def unsettled():
    session = greeted()
    session.receive(encoded(1, 2))
    return session


def resting():
    session = unsettled()
    assert session.settle(2, 100, greedy=True) is Settled.REST
    return session


def held():
    session = greeted()
    session.hold("stream")
    return session


def changing():
    session = greeted()
    session.receive(hello(outbox="other"))
    return session


def leaving():
    session = unsettled()
    session.leave(GOAWAY, 2.0)
    return session


def parting():
    session = unsettled()
    session.leave(GOAWAY, -1)
    return session


def gone():
    session = greeted()
    session.leave(GOAWAY, -1)
    return session


def ended():
    session = greeted()
    session.closed()
    return session


def ended_unsettled():
    session = unsettled()
    session.closed()
    return session


EVERY = (
    greeting, resuming, established, unsettled, resting, held, changing, leaving, parting, gone,
    ended, ended_unsettled,
)  # fmt: skip


def where(session):
    return session.state, session.departure


@pytest.mark.parametrize("made", EVERY)
def test_a_lost_connection_ends_every_state_and_waits_for_what_is_unsettled(made):
    session = made()
    owes = session.unsettled
    assert session.closed() == (() if owes else (Forget(),))
    assert session.state is State.ENDED


@pytest.mark.parametrize(
    ("made", "text", "state"),
    [
        (greeting, hello(), State.RESUMING),
        (established, hello(), State.CHANGING),
        (leaving, encoded(3), State.ESTABLISHED),
        (established, b'{"credential":"x"}', State.ESTABLISHED),
        (changing, b'{"credential":"x"}', State.CHANGING),
    ],
)
def test_what_a_device_may_say(made, text, state):
    session = made()
    session.receive(text)
    assert session.state is state


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (greeting, encoded(1)),
        (greeting, b'{"credential":"x"}'),
        (greeting, b'{"result":{"id":"1","ok":true}}'),
        (resuming, hello()),
        (resuming, encoded(1)),
        (resuming, b'{"credential":"x"}'),
        (unsettled, hello()),
        (resting, hello()),
        (changing, hello()),
        (changing, encoded(1)),
        (ended, encoded(1)),
    ],
)
def test_what_a_device_may_not_say(made, text):
    session = made()
    before = where(session)
    assert offence(session, text) == (PolicyViolation, "hello")
    assert where(session) == before


@pytest.mark.parametrize("made", EVERY)
def test_only_a_hello_can_be_answered(made):
    session = made()
    if session.state in (State.RESUMING, State.CHANGING):
        session.begin(4, 100)
        assert (session.state, session.acked, session.unsettled) == (State.ESTABLISHED, 4, 0)
    else:
        with pytest.raises(AssertionError):
            session.begin(4, 100)


@pytest.mark.parametrize(
    ("made", "greedy", "expected"),
    [
        (unsettled, False, Settled.ACKNOWLEDGE),
        (unsettled, True, Settled.REST),
        (leaving, False, Settled.ACKNOWLEDGE),
        (leaving, True, Settled.REST),
        (parting, False, Settled.ACKNOWLEDGE),
        (parting, True, Settled.ACKNOWLEDGE),
        (ended_unsettled, False, Settled.NOTHING),
    ],
)
def test_what_follows_a_settlement(made, greedy, expected):
    session = made()
    assert session.settle(1, 100, greedy=greedy) is expected
    if expected is Settled.REST:
        assert session.settle(2, 100, greedy=True) is Settled.NOTHING
        assert session.take_ack() is not None
        assert session.settle(2, 100, greedy=True) is Settled.REST
    if expected is Settled.NOTHING:
        assert session.settle(2, 100) is Settled.FORGET


def test_nothing_is_settled_that_was_not_received():
    with pytest.raises(AssertionError):
        greeted().settle(1, 100)


@pytest.mark.parametrize("made", EVERY)
def test_a_hold_is_told_to_established_sessions_only(made):
    session = made()
    told = session.hold("stream")
    established_now = session.state is State.ESTABLISHED
    assert told == ((Send(b'{"hold":{"reason":"stream"}}'),) if established_now else ())
    released = session.release(100)
    assert len(released) == established_now
    assert session.release(100) == ()


@pytest.mark.parametrize("made", EVERY)
def test_each_state_answers_leave_with_a_goaway_or_not_at_all(made):
    session = made()
    before = where(session)
    outputs = session.leave(GOAWAY, 2.0)
    if session.state is State.ENDED or before[1] is not Departure.STAYING:
        assert outputs == ()
        assert where(session) == before
    else:
        assert outputs == (GOODBYE[0], Wake(3.5))
        assert where(session) == (before[0], Departure.LEAVING)


@pytest.mark.parametrize(
    ("made", "outputs", "departure"),
    [
        (greeting, GOODBYE, Departure.GONE),
        (resuming, GOODBYE, Departure.GONE),
        (established, GOODBYE, Departure.GONE),
        (changing, GOODBYE, Departure.GONE),
        (resting, (Send(b'{"ack":2,"credit":6}'), *GOODBYE), Departure.GONE),
        (unsettled, (Send(b'{"hold":{"reason":"drain"}}'), StopReading()), Departure.PARTING),
        (leaving, (), Departure.LEAVING),
        (parting, (), Departure.PARTING),
        (gone, (), Departure.GONE),
        (ended, (), Departure.STAYING),
    ],
)
def test_leave_without_lingering_in_each_state(made, outputs, departure):
    session = made()
    assert session.leave(GOAWAY, -1) == outputs
    assert session.departure is departure


def test_a_parting_session_says_goodbye_when_all_is_settled():
    session = parting()
    session.settle(1, 100)
    session.take_ack()
    assert session.parted() == ()
    session.settle(2, 100)
    session.take_ack()
    assert session.parted() == GOODBYE
    assert session.departure is Departure.GONE
    assert session.parted() == ()


@pytest.mark.parametrize(
    ("made", "expired", "outputs"),
    [
        (established, False, (WatchExpiry(),)),
        (unsettled, False, (WatchExpiry(),)),
        (changing, False, (WatchExpiry(),)),
        (leaving, False, (Send(b'{"hold":{"reason":"drain"}}'), StopReading())),
        (leaving, True, (Send(b'{"hold":{"reason":"drain"}}'), StopReading())),
        (parting, True, ()),
        (gone, True, ()),
    ],
)
def test_what_a_deadline_means(made, expired, outputs):
    assert made().deadline_passed(expired=expired) == outputs


@pytest.mark.parametrize(
    ("made", "expired", "offence"),
    [(greeting, False, "hello"), (greeting, True, "hello"), (established, True, "credential")],
)
def test_a_deadline_that_ends_a_session(made, expired, offence):
    (output,) = made().deadline_passed(expired=expired)
    assert output.offence.error == offence


@pytest.mark.parametrize("made", EVERY)
def test_a_newer_session_takes_over_from_every_state(made):
    session = made()
    (output,) = session.supersede()
    assert isinstance(output.offence, TakenOver)
    assert session.superseded
