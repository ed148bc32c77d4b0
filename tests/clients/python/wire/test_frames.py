import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from support.values import JSON
from tidegate.wire import frames
from tidegate.wire.errors import FrameError
from tidegate.wire.frames import (
    Damaged,
    Hello,
    Message,
    Result,
    decode_device_frame,
    decode_server_frame,
)


def test_each_frame_of_a_device():
    hello = decode_device_frame(b'{"hello":{"outbox":"b","oldest":7,"age_ms":80}}')
    assert hello == Hello("b", 7, 80)
    known = decode_device_frame(b'{"hello":{"outbox":"b","oldest":7,"sent":0}}')
    assert known == Hello("b", 7, 0, 0)
    assert decode_device_frame(b'{"credential":"a.b.c"}') == "a.b.c"
    result = decode_device_frame(b'{"result":{"id":"1","ok":true,"data":{"x": 1}}}')
    assert result == Result("1", True, Raw(b'{"x": 1}'))
    one = decode_device_frame(b'{"seq":1,"type":"t","data":null}')
    assert one == [Message(1, "t", Raw(b"null"), UNSET)]
    many = decode_device_frame(b'[{"seq":1,"type":"t","data":1},{"seq":2,"type":"u","data":2}]')
    assert [message.seq for message in many] == [1, 2]


def test_a_newer_client_may_say_more_in_its_hello():
    newer = decode_device_frame(b'{"hello":{"outbox":"b","oldest":7,"shiny":"v1","more":[1]}}')
    assert newer == Hello("b", 7)


@given(JSON)
def test_data_is_carried_byte_for_byte(value):
    data = json.dumps(value)
    (message,) = decode_device_frame(f'{{"seq":9,"type":"t","data":{data}}}'.encode())
    assert bytes(message.data) == data.encode()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"", "json"),
        (b"\xff", "utf8"),
        (b'{"seq":1,"type":"t","data":"\xc3\x28"}', "utf8"),
        (b'{"seq":1,"type":"t","data":"\xed\xa0\x80"}', "utf8"),  # a lone surrogate
        (b"{", "json"),
        (b"nonsense", "json"),
        (b'{"seq":1,"type":"t","data":1}{"seq":2,"type":"t","data":1}', "json"),
        (b'{"seq":1,"type":"t","data":"\x00"}', "json"),
        (b'{"seq":1,"type":"t","data":NaN}', "json"),
        (b"{}", "frame"),
        (b"1", "frame"),
        (b'"text"', "frame"),
        (b"null", "frame"),
        (b"[1]", "frame"),
        (b'[{"type":"t","data":1}]', "frame"),
        (b'{"type":"t","data":1}', "frame"),
        (b'{"seq":0,"type":"t","data":1}', "frame"),
        (b'{"seq":-1,"type":"t","data":1}', "frame"),
        (b'{"seq":9007199254740992,"type":"t","data":1}', "frame"),
        (b'{"seq":1.5,"type":"t","data":1}', "frame"),
        (b'{"seq":"1","type":"t","data":1}', "frame"),
        (b'{"seq":true,"type":"t","data":1}', "frame"),
        (b'{"hello":{"outbox":"b"}}', "frame"),
        (b'{"hello":{"outbox":"b","oldest":1},"credential":"x"}', "frame"),
        (b'{"hello":{"outbox":"b","oldest":1,"sent":-1}}', "frame"),
        (b'{"hello":{"outbox":"b","oldest":1},"more":1}', "frame"),
        (b'{"credential":5}', "frame"),
        (b'{"welcome":{}}', "frame"),
        (b'{"ack":1}', "frame"),
    ],
)
def test_bytes_that_are_not_a_frame_are_refused_with_the_offence(text, error):
    assert error_of(text) == error


def error_of(text):
    try:
        damaged = decode_device_frame(text)
    except FrameError as exc:
        return exc.error
    assert isinstance(damaged, Damaged)
    return damaged.error


def test_very_deep_nesting_is_an_offence_and_not_a_crash():
    for text in (b"[" * 60_000, b'{"seq":1,"type":"t","data":' + b"[" * 60_000 + b"]" * 60_000):
        assert error_of(text) in ("depth", "json", "frame")


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_raise_a_frame_error(noise):
    with contextlib.suppress(FrameError):
        decode_device_frame(noise)


def test_server_frames_round_trip_and_unknown_members_are_ignored():
    resume = frames.Resume("b", 4)
    welcome = frames.Welcome(
        "s", 32, 65536, resume, 2000, 30000, 262_144, 1000, 32, frames.FEATURES
    )
    assert decode_server_frame(frames.encode_named("welcome", welcome)).welcome == welcome
    older = frames.Welcome("s", 32, 65536, resume, 2000, 30000)
    assert decode_server_frame(frames.encode_named("welcome", older)).welcome == older
    resumed = decode_server_frame(frames.encode_resume("b", 4, 32))
    assert (resumed.resume, resumed.credit, resumed.ack) == (resume, 32, UNSET)
    acked = decode_server_frame(frames.encode_ack(7, 64))
    assert (acked.ack, acked.credit) == (7, 64)
    newer = decode_server_frame(b'{"ack":1,"credit":2,"mood":"fine","hold":{"reason":"x","y":1}}')
    assert newer.hold == frames.Hold("x")
    with pytest.raises(FrameError):
        decode_server_frame(b'{"ack":"1"}')
    for text in (b'{"\xff":1}', b'{"command":{"id":"\xff","type":"t"}}', b'{"x":' + b"[" * 9_000):
        with pytest.raises(FrameError):
            decode_server_frame(text)


@given(
    st.lists(st.builds(Message, st.integers(1, 100), st.just("t"), st.just(Raw(b"1"))), min_size=1)
)
def test_what_a_client_encodes_a_gateway_decodes(messages):
    assert decode_device_frame(frames.encode_messages(messages)) == messages


@pytest.mark.parametrize(
    "text",
    [
        b'{"seq":1,"data":1}',
        b'{"seq":1,"type":"t"}',
        b'{"seq":1,"type":"t","data":1,"credential":"x"}',
        b'{"seq":1,"type":"t","data":1,"hello":{"outbox":"b","oldest":1}}',
        b'{"seq":1,"type":"t","data":1,"result":{"id":"1","ok":true}}',
    ],
)
def test_an_incomplete_message_is_damaged(text):
    assert decode_device_frame(text) == Damaged(
        "frame", "a message has seq, type, data and optionally time"
    )


def test_a_credential_is_read_back_as_it_was_written():
    assert decode_device_frame(frames.encode_credential("a.b.c")) == "a.b.c"


def test_a_message_may_name_its_trace_and_nothing_else_may():
    (message,) = frames.decode_device_frame(b'{"seq":1,"type":"a","data":1,"trace":"00-x"}')
    assert message.trace == "00-x"
    (message,) = frames.decode_device_frame(b'[{"seq":1,"type":"a","data":1}]')
    assert message.trace is UNSET
    damaged = frames.decode_device_frame(b'{"seq":1,"type":"a","data":1,"trace":7}')
    assert damaged.error == "frame"
    with pytest.raises(FrameError, match="exactly one of"):
        frames.decode_device_frame(b'{"credential":"x","trace":"00-x"}')


def test_a_receipt_and_its_settlement_are_read_back_as_they_were_written():
    received = frames.decode_device_frame(frames.encode_received("c-1"))
    assert received == frames.Received("c-1")
    assert frames.decode_server_frame(frames.encode_settled("c-1")).settled == "c-1"
