"""What becomes of the messages of a frame."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.session.errors import DataError, PolicyViolation, SessionError
from gateway.session.intake import KNOWN_TYPES_MAX
from gateway.session.machine import Session
from support.sessions import LIMITS, encoded, greeted, hello, offence
from support.values import JSON
from tidegate.wire import frames


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
def test_noise_ends_in_a_session_error_or_in_nothing(noise):
    session = greeted()
    try:
        session.receive(noise)
    except SessionError as exc:
        assert exc.close_code in (1007, 1008, 1009)


@pytest.mark.parametrize("before", ["", '{"seq":1,"type":"t","data":1},'])
@pytest.mark.parametrize("kind", ["", ".", "t.", "a b", "a\\nb", "*", ">"])
def test_a_type_that_is_no_subject_is_rejected_wherever_it_stands(before, kind):
    """Otherwise nats-server would end the connection of the whole node."""
    seq = 2 if before else 1
    frame = f'[{before}{{"seq":{seq},"type":"{kind}","data":1}}]'
    assert greeted().receive(frame.encode())[-1].error == "type"


def test_known_types_are_shared_but_bounded():
    known: set[str] = set()
    session = Session(LIMITS, known)
    session.receive(hello())
    session.begin(0, 100)
    session.receive(encoded(1, message_type="a.b"))
    session.receive(encoded(2, message_type="not ok"))
    assert known == {"a.b"}


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


def test_a_message_that_does_not_fit_its_schema_is_a_dead_letter():
    session = Session(
        LIMITS, None, lambda message_type, _data: "no" if message_type == "b" else None
    )
    session.receive(hello())
    session.begin(0, 100)
    (fits,) = session.receive(encoded(1, message_type="a"))
    (letter,) = session.receive(encoded(2, message_type="b"))
    assert isinstance(fits, frames.Message)
    assert (letter.seq, letter.error, letter.detail) == (2, "schema", "no")


def test_many_brackets_that_are_not_deep_are_stored_without_a_schema():
    (message,) = greeted().receive(b'{"seq":1,"type":"t","data":[[],[],[],[],[]]}')
    assert bytes(message.data) == b"[[],[],[],[],[]]"


def test_the_set_of_known_types_has_a_bound():
    known = {str(number) for number in range(KNOWN_TYPES_MAX)}
    session = Session(LIMITS, known)
    session.receive(hello())
    session.begin(0, 100)
    (message,) = session.receive(encoded(1, message_type="new"))
    assert isinstance(message, frames.Message)
    assert len(known) == KNOWN_TYPES_MAX


BODIES = st.one_of(
    JSON, st.sampled_from(["x" * 255, [[[[1]]]], [[[[[1]]]]], "[[[[[[", "\u00e9{{{{{"])
)
MESSAGES = st.fixed_dictionaries(
    {"type": st.sampled_from(["t", "t", "t", "a.b", "a b"]), "data": BODIES},
    optional={"time": st.sampled_from(["2026-11-23T10:00:00Z", "yesterday"])},
)


@given(st.lists(MESSAGES, min_size=1, max_size=4), st.booleans())
def test_a_quick_look_at_a_frame_judges_as_a_look_at_each_message(messages, ascii_only):
    frame = [{"seq": seq, **message} for seq, message in enumerate(messages, 2)]
    text = json.dumps(frame, ensure_ascii=ascii_only).encode()
    answers = []
    for schema_problem in (None, lambda _type, _data: None):
        session = Session(LIMITS, None, schema_problem)
        session.receive(hello())
        session.begin(0, 100)
        session.receive(encoded(1))  # its type is known from now on
        session.settle(1, 100)
        answers.append((session.receive(text), session.unsettled))
    assert answers[0] == answers[1]
