import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.session.errors import DataError, PolicyViolation, SessionError
from gateway.session.machine import Session, SessionLimits, State
from tidegate.wire import frames

LIMITS = SessionLimits(
    message_bytes_max=256,
    json_depth_max=4,
    messages_per_frame_max=10,
    credit_initial=4,
    credit_max=16,
)


def encoded(*seqs, message_type="t", data=1):
    batch = [{"seq": seq, "type": message_type, "data": data} for seq in seqs]
    return json.dumps(batch[0] if len(batch) == 1 else batch).encode()


def hello(oldest=1, outbox="box"):
    return json.dumps({"hello": {"outbox": outbox, "oldest": oldest}}).encode()


def greeted(oldest=1):
    session = Session(LIMITS)
    session.receive(hello(oldest))
    session.begin(oldest - 1, 100)
    return session


def offence(session, text):
    with pytest.raises(SessionError) as caught:
        session.receive(text)
    return type(caught.value), caught.value.error


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


@pytest.mark.parametrize("seqs", [(2,), (1, 3), (1, 1), (1, 2, 2), (3, 2)])
def test_a_gap_or_a_repeat_is_an_offence(seqs):
    assert offence(greeted(), encoded(*seqs)) == (PolicyViolation, "gap")


def test_credit_is_a_hard_limit():
    session = greeted()
    session.receive(encoded(1, 2, 3, 4))
    assert offence(session, encoded(5)) == (PolicyViolation, "credit")
    session.settle(2, 100)
    assert session.take_ack() == b'{"ack":2,"credit":6}'
    session.receive(encoded(5, 6, 7, 8))
    assert offence(session, encoded(9)) == (PolicyViolation, "credit")


def test_acks_are_cumulative_and_said_once():
    session = greeted()
    session.receive(encoded(1, 2, 3))
    session.settle(1, 100)
    session.settle(3, 100)
    assert json.loads(session.take_ack())["ack"] == 3
    assert session.take_ack() is None


def test_counts_are_bounded():
    assert offence(greeted(), encoded(*range(1, 12))) == (PolicyViolation, "frame")
    assert offence(greeted(), b"[]") == (PolicyViolation, "frame")
    malformed = b",".join(b'{"seq":%d}' % seq for seq in range(1, 12))
    assert offence(greeted(), b"[" + malformed + b"]") == (PolicyViolation, "frame")


def test_data_over_the_limit_is_a_dead_letter_that_keeps_its_beginning():
    session = greeted()
    assert isinstance(session.receive(encoded(1, data="x" * 254))[0], frames.Message)
    text = encoded(2, data="x" * 9_000)
    (letter,) = session.receive(text)
    assert (letter.seq, letter.error) == (2, "too_large")
    assert "9002 bytes, over 256" in letter.detail
    assert (letter.raw, letter.original_bytes) == (text[:4_096], len(text))
    small = encoded(3, data="x" * 255)
    (letter,) = session.receive(small)
    assert (letter.error, letter.raw, letter.original_bytes) == ("too_large", small, len(small))


@pytest.mark.parametrize("member", ['"more":"%s"', '"type":"a b","data":"%s"'])
def test_a_damaged_message_is_kept_whole_up_to_the_size_of_a_large_sound_one(member):
    prefix, _, suffix = (b'{"seq":1,' + member.encode() + b"}").partition(b"%s")
    room = LIMITS.message_bytes_max + 1_024 - len(prefix) - len(suffix)
    data = 200 if "data" in member else room
    whole = prefix.replace(b"a b", b"a b" + b"c" * (room - data)) + b"x" * data + suffix
    (letter,) = greeted().receive(whole)
    assert (letter.raw, letter.original_bytes) == (whole, 0)
    over = whole.replace(b'"seq"', b' "seq"')
    (letter,) = greeted().receive(over)
    assert (letter.raw, letter.original_bytes) == (over, len(over))
    (letter,) = greeted().receive(over + b" " * 9_000)
    assert (len(letter.raw), letter.original_bytes) == (4_096, len(over) + 9_000)


def test_a_damaged_message_keeps_its_place_and_spoils_no_other():
    session = greeted()
    text = (
        b'[ {"seq":1,"type":"t","data":"\\ud83d\\ude00 \\\\ud800"} ,'
        b'{"seq":2,"type":"t","data":"\\ud800"},\n{"seq":3,"type":7,"data":1},'
        b'{"seq":4,"type":"t","data":"\\ude00\\ud83d"}]'
    )
    first, second, third, fourth = session.receive(text)
    assert bytes(first.data) == b'"\\ud83d\\ude00 \\\\ud800"'
    assert (second.error, third.error, fourth.error) == ("surrogate", "schema", "surrogate")
    assert second.raw == b'{"seq":2,"type":"t","data":"\\ud800"}'
    assert third.raw == b'{"seq":3,"type":7,"data":1}'
    assert session.unsettled == 4


@pytest.mark.parametrize("data", ['"\\ud800"', '"\\udc00x"', '{"\\uDBFF":1}', '"\\ud800\\u0041"'])
def test_half_a_surrogate_pair_is_a_dead_letter(data):
    (letter,) = greeted().receive(b'{"seq":1,"type":"t","data":%s}' % data.encode())
    assert (letter.seq, letter.error) == (1, "surrogate")


def test_damaged_messages_beyond_the_credit_or_out_of_order_are_offences():
    beyond = b"[" + b",".join(b'{"seq":%d,"type":7}' % seq for seq in range(1, 6)) + b"]"
    assert offence(greeted(), beyond) == (PolicyViolation, "credit")
    assert offence(greeted(), b'{"seq":2,"type":7}') == (PolicyViolation, "gap")
    assert offence(greeted(), b'[{"seq":1,"type":7},{"seq":3,"type":7}]') == (
        PolicyViolation,
        "gap",
    )


def test_settling_again_is_not_worth_an_ack():
    session = greeted()
    session.settle(0, 100)
    assert session.take_ack() is None
    session.receive(encoded(1, 2))
    session.settle(2, 100)
    session.take_ack()
    session.settle(1, 100)
    session.settle(2, 100)
    assert session.take_ack() is None


def test_data_errors_and_policy_errors_have_their_codes():
    assert offence(greeted(), b"{") == (DataError, "json")
    assert offence(greeted(), b"\xff") == (DataError, "utf8")
    assert offence(greeted(), b"{}") == (PolicyViolation, "frame")
    long = json.dumps({"result": {"id": "x" * 65, "ok": True}}).encode()
    assert offence(greeted(), long) == (PolicyViolation, "result")


def test_what_cannot_be_stored_keeps_its_place_and_its_bytes():
    session = greeted()
    text = (
        b'[{"seq":1,"type":"a*b","data":{"x": 1}},{"seq":2,"type":"t","data":[[[[[1]]]]]},'
        b'{"seq":3,"type":"t","data":1,"time":"noon"}]'
    )
    received = session.receive(text)
    assert [(each.seq, each.error) for each in received] == [(1, "type"), (2, "depth"), (3, "time")]
    assert received[0].raw == b'{"seq":1,"type":"a*b","data":{"x": 1}}'


@given(st.binary(max_size=100))
def test_noise_ends_in_a_session_error_or_nothing(noise):
    session = greeted()
    try:
        session.receive(noise)
    except SessionError as exc:
        assert exc.close_code in (1007, 1008, 1009)


def test_known_types_are_shared_but_bounded():
    known: set[str] = set()
    session = Session(LIMITS, known)
    session.receive(hello())
    session.begin(0, 100)
    session.receive(encoded(1, message_type="a.b"))
    session.receive(encoded(2, message_type="not ok"))
    assert known == {"a.b"}


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


def test_nothing_is_said_between_hello_and_welcome():
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
    session.hold()
    session.settle(4, 100)
    assert session.take_ack() == b'{"ack":4,"credit":0}'
    assert session.release(100) == b'{"ack":4,"credit":4}'
    assert session.take_ack() is None


def test_a_further_hello_begins_another_outbox_with_a_small_window():
    session = greeted()
    session.receive(encoded(1, 2, 3, 4))
    session.settle(4, 100)
    session.take_ack()
    received = session.receive(hello(oldest=7, outbox="other"))
    assert (received.outbox, session.outbox, session.state) == ("other", "other", State.CHANGING)
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
    session.hold()
    session.begin(0, 100)
    session.receive(encoded(1, 2, 3, 4))
    session.settle(4, 100)
    assert session.take_ack() == b'{"ack":4,"credit":8}'


def test_depth_comes_before_the_schema_and_both_before_the_stream():
    asked = []

    def judge(message_type, data):
        asked.append((message_type, data))
        return "no" if data == b"[[],[],[],[],[]]" else None

    session = Session(LIMITS, None, judge)
    session.receive(hello())
    session.begin(0, 100)
    text = (
        b'[{"seq":1,"type":"a","data":[[[[[[]]]]]]},{"seq":2,"type":"b","data":[[],[],[],[],[]]},'
        b'{"seq":3,"type":"c","data":[[],[],[],[]]},{"seq":4,"type":"d","data":1}]'
    )
    first, second, third, fourth = session.receive(text)
    assert (first.error, second.error, second.detail) == ("depth", "schema", "no")
    assert (third.type, fourth.type) == ("c", "d")
    assert sorted(each for each, _data in asked) == ["b", "c", "d"]
