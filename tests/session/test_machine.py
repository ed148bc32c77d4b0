"""The session's state machine: its promises, and each of its transitions."""

import json

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.session.errors import PolicyViolation, TakenOver
from gateway.session.machine import Departure, Session, Settled, State
from gateway.session.outputs import Close, Forget, Send, StopReading, Wake, WatchExpiry
from support.sessions import LIMITS, encoded, greeted, hello, offence
from tidegate.wire import frames


def test_hello_comes_first():
    for first in (encoded(1), b'{"credential":"x"}', b'{"result":{"id":"1","ok":true}}'):
        assert offence(Session(LIMITS), first) == (PolicyViolation, "hello")


@pytest.mark.parametrize("outbox", ["", "a.b", "a b", "ä", "x" * 65, "a\u0000", "*", ">"])
def test_an_outbox_is_one_token(outbox):
    assert offence(Session(LIMITS), hello(outbox=outbox))[1] == "hello"


def test_hello_says_where_the_order_begins():
    session = greeted(1042)
    assert session.state is State.ESTABLISHED
    assert session.acked == 1041
    assert [message.seq for message in session.receive(encoded(1042, 1043))] == [1042, 1043]
    assert session.unsettled == 2


def test_acks_are_cumulative_and_said_once():
    session = greeted()
    session.receive(encoded(1, 2, 3))
    session.settle(1, 100)
    session.settle(3, 100)
    assert json.loads(session.take_ack())["ack"] == 3
    assert session.take_ack() is None


def test_settling_a_seq_again_causes_no_ack():
    session = greeted()
    session.settle(0, 100)
    assert session.take_ack() is None
    session.receive(encoded(1, 2))
    session.settle(2, 100)
    session.take_ack()
    session.settle(1, 100)
    session.settle(2, 100)
    assert session.take_ack() is None


class Conversation(RuleBasedStateMachine):
    """Any interleaving of sending and settling keeps the promises of the session."""

    def __init__(self):
        super().__init__()
        self.session = Session(LIMITS)
        self.session.receive(hello())
        self.session.begin(0, 100)
        self.sent = 0
        self.settled = 0
        self.limit = LIMITS.credit_initial
        self.told = 0

    @precondition(lambda self: self.limit > self.sent)
    @rule(data=st.data())
    def send_within_the_credit_told(self, data):
        room = min(self.limit - self.sent, LIMITS.messages_per_frame_max)
        count = data.draw(st.integers(1, room))
        seqs = range(self.sent + 1, self.sent + count + 1)
        received = self.session.receive(encoded(*seqs))
        assert [message.seq for message in received] == list(seqs)
        assert all(isinstance(message, frames.Message) for message in received)
        self.sent += count

    @precondition(lambda self: self.sent > self.settled)
    @rule(data=st.data())
    def settle_in_order(self, data):
        self.settled = data.draw(st.integers(self.settled + 1, self.sent))
        self.session.settle(self.settled, 100)

    @rule()
    def tell(self):
        ack = self.session.take_ack()
        assert (ack is not None) == (self.settled > self.told)
        if ack is not None:
            frame = json.loads(ack)
            assert frame["ack"] == self.settled
            assert frame["ack"] + frame["credit"] >= self.limit
            self.told = self.settled
            self.limit = frame["ack"] + frame["credit"]

    @invariant()
    def nothing_settled_is_unsettled(self):
        assert self.session.unsettled == self.sent - self.settled
        assert self.session.acked == self.settled


TestConversation = Conversation.TestCase


def test_a_frame_between_hello_and_welcome_is_an_offence():
    session = Session(LIMITS)
    session.receive(hello())
    assert session.state is State.RESUMING
    assert offence(session, encoded(1)) == (PolicyViolation, "hello")


def test_the_order_goes_on_from_what_the_stream_has():
    session = Session(LIMITS)
    session.receive(hello(oldest=5))
    session.begin(9, 100)
    assert session.acked == 9
    assert offence(session, encoded(5))[1] == "gap"
    again = Session(LIMITS)
    again.receive(hello(oldest=5))
    again.begin(9, 100)
    assert [message.seq for message in again.receive(encoded(10))] == [10]


def test_a_hold_gives_no_credit_and_its_release_says_how_much_there_is():
    session = greeted()
    session.receive(encoded(1, 2, 3, 4))
    session.hold("stream")
    session.settle(4, 100)
    assert session.take_ack() == b'{"ack":4,"credit":0}'
    assert session.release(100) == (Send(b'{"ack":4,"credit":4}'),)
    assert session.take_ack() is None


def test_a_further_hello_begins_another_outbox_with_a_small_window():
    session = greeted()
    session.receive(encoded(1, 2, 3, 4))
    session.settle(4, 100)
    session.take_ack()
    received = session.receive(hello(oldest=7, outbox="other"))
    assert (received.outbox, session.state) == ("other", State.CHANGING)
    assert session.unsettled == 0
    session.begin(11, 100)
    assert (session.state, session.acked, session.credit) == (State.ESTABLISHED, 11, 4)
    assert session.take_ack() is None
    assert [message.seq for message in session.receive(encoded(12))] == [12]
    session.settle(12, 100)
    assert session.take_ack() == b'{"ack":12,"credit":5}'


def test_a_further_hello_waits_until_every_message_is_acknowledged():
    session = greeted()
    session.receive(encoded(1))
    assert offence(session, hello()) == (PolicyViolation, "hello")
    session.settle(1, 100)
    assert offence(session, hello()) == (PolicyViolation, "hello")  # the ack is not sent yet
    session.take_ack()
    assert offence(session, hello(outbox="a.b")) == (PolicyViolation, "hello")
    assert session.receive(hello()).outbox == "box"


def test_between_a_further_hello_and_its_answer_only_what_belongs_to_no_outbox_is_said():
    session = greeted()
    session.receive(hello(outbox="other"))
    for early in (encoded(1), hello(outbox="third")):
        assert offence(session, early) == (PolicyViolation, "hello")
    assert session.receive(b'{"credential":"x"}') == "x"
    assert session.receive(b'{"result":{"id":"1","ok":true}}').id == "1"


def test_a_hold_that_ends_before_welcome_leaves_no_trace():
    session = Session(LIMITS)
    session.receive(hello())
    session.hold("stream")
    session.begin(0, 100)
    session.receive(encoded(1, 2, 3, 4))
    session.settle(4, 100)
    assert session.take_ack() == b'{"ack":4,"credit":8}'


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
