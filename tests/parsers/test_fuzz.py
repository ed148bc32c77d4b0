"""Mutated input for every parser of strangers' bytes: it is read, or refused with the parser's own
errors; nothing else comes out. A short run in the suite, `make fuzz` for some minutes.
"""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from gateway.session.errors import SessionError
from gateway.session.limits import SessionLimits
from gateway.session.machine import Session
from gateway.session.regions import State
from support.in_memory import UNBOUNDED, Line
from support.stranger_frames import SAMPLES, SEGMENTS
from support.strangers import PARSERS, run
from tidegate.wire import frames
from tidegate.wire.grammar import is_message_type, is_timestamp, is_token

pytestmark = pytest.mark.fuzz

TOKENS = [
    b"", b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b" ", b"\r\n", b"\r\n\r\n", b"=", b";",
    b".", b"null", b"1e999", b"-1", b"0", b"9007199254740992", b"\xff", b"\xed\xa0\x80",
    b"\\ud800", b"\\u0000", b'"seq":', b'"seq":2', b'"hello":{"outbox":"b","oldest":1}',
    b'"result":', b'"credential":"x"', b"Host: y\r\n", b"Upgrade: websocket\r\n", b"\x81\xfe",
    b"\x00\x80\x00\x00\x00\x00", b"\x89\x80\x00\x00\x00\x00", b"\x88\x80\x00\x00\x00\x00",
]  # fmt: skip


@st.composite
def mutated(draw, samples):
    """A sample with pieces cut out, put in, repeated and moved."""
    text = draw(st.sampled_from(samples))
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 20)))
        piece = draw(
            st.one_of(
                st.sampled_from(TOKENS),
                st.binary(max_size=4),
                st.just(text[start:end] * 2),
                st.integers(0, len(text)).map(lambda at, text=text: text[at : at + 12]),
            )
        )
        text = text[:start] + piece + text[end:]
    return text


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
@given(data=st.data())
def test_nothing_comes_out_but_an_answer_or_a_refusal(parser, data):
    text = data.draw(st.one_of(mutated(parser.samples), st.binary(max_size=200)))
    run(parser, text)


LIMITS = SessionLimits(
    message_bytes_max=256,
    json_depth_max=4,
    messages_per_frame_max=10,
    credit_initial=8,
    credit_max=8,
)


@given(st.lists(mutated(SAMPLES), max_size=6))
def test_a_session_lets_nothing_through_that_cannot_be_stored(texts):
    session = Session(LIMITS)
    for text in (SAMPLES[0], *texts):
        before = session.unsettled
        try:
            received = session.receive(text)
        except SessionError as offence:
            assert offence.close_code in (1007, 1008, 1009)
            assert len(offence.reason.encode()) <= 123
            assert json.loads(offence.reason)["error"]
            return
        if isinstance(received, frames.Hello):
            assert is_token(received.outbox)
            assert before == 0
            session.begin(received.oldest - 1, 8)
        elif isinstance(received, list):
            assert session.state is State.ESTABLISHED
            assert session.unsettled == before + len(received) <= 8
            first = session.acked + before + 1
            assert [message.seq for message in received] == list(
                range(first, first + len(received))
            )
            for message in received:
                _check(message, text)
            session.settle(received[-1].seq, 8)
            assert session.take_ack() is not None


def _check(message, text):
    if isinstance(message, frames.Message):
        assert is_message_type(message.type)
        assert message.time is UNSET or is_timestamp(message.time)
        assert len(bytes(message.data)) <= LIMITS.message_bytes_max
        assert bytes(message.data) in text
        json.dumps(json.loads(bytes(message.data)), ensure_ascii=False).encode()
    else:
        assert message.error in ("schema", "type", "time", "depth", "too_large", "surrogate")
        assert message.raw in text
        assert len(message.raw) <= LIMITS.message_bytes_max + 4_096


@given(mutated([b"".join(SEGMENTS), *SEGMENTS]), st.lists(st.integers(0, 600), max_size=6))
def test_a_connection_takes_any_bytes_in_any_pieces(wire, cuts):
    line = Line(UNBOUNDED)
    places = sorted({min(cut, len(wire)) for cut in cuts} | {0, len(wire)})
    for begin, end in itertools.pairwise(places):
        line.feed(wire[begin:end])
    line.end()
    assert isinstance(line.handler.heard[-1], str)
    assert line.transport.eof or line.handler.heard[-1] in ("lost", "device")
