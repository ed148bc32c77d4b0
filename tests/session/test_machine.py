"""A session from hello to its end, as a device meets it."""

import json

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.session.errors import PolicyViolation
from gateway.session.machine import DRAIN, Session
from gateway.session.outputs import Send
from gateway.session.regions import State
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


def test_a_session_knows_whether_it_was_sent_away_by_a_drain():
    session = greeted()
    assert not session.drained
    session.leave(frames.Goaway(DRAIN, 5, "slot"), 2.0)
    assert session.drained
