"""The bytes of a lean device: frames in and out, and what a device reads from an answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.devices.wire import (
    PING,
    TEXT,
    Answer,
    Inbound,
    ack_of,
    first_retry_ms_of,
    handshake_request,
    is_hold,
    is_welcome,
    masked_frame,
    resume_of,
)

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 3\r\nTidegate-Retry-After-Ms: 2100\r\n"
    b"Tidegate-Ticket: AbC-_9\r\n\r\n"
    b'{"error":"admission","reason":"rate","retry_ms":2100}'
)


def server_frame(opcode, payload):
    size = len(payload)
    if size < 126:
        head = bytes([0x80 | opcode, size])
    elif size < 65_536:
        head = bytes([0x80 | opcode, 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([0x80 | opcode, 127]) + size.to_bytes(8, "big")
    return head + payload


def unmasked(frame):
    """Size, masking key and payload of a client's frame."""
    size, at = frame[1] & 0x7F, 2
    if size >= 126:
        width = 2 if size == 126 else 8
        size, at = int.from_bytes(frame[2 : 2 + width], "big"), 2 + width
    return size, frame[at : at + 4], frame[at + 4 :]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536])
def test_a_masked_frame_has_the_length_it_says(size):
    frame = masked_frame(TEXT, b"x" * size)
    assert frame[0] == 0x81
    assert frame[1] & 0x80
    assert unmasked(frame) == (size, bytes(4), b"x" * size)


@given(
    st.lists(st.tuples(st.sampled_from([TEXT, PING]), st.binary(max_size=300)), max_size=5),
    st.integers(1, 40),
)
def test_frames_are_the_same_however_the_bytes_come(frames, step):
    data = SWITCH + b"".join(server_frame(*frame) for frame in frames)
    inbound, found = Inbound(), []
    for start in range(0, len(data), step):
        piece = data[start : start + step]
        if not inbound.upgraded:
            answer = inbound.answer(piece)
            assert answer in (None, b"")
            piece = b""
        if inbound.upgraded:
            found += inbound.frames(piece)
    assert found == frames


def test_a_large_frame_is_whole():
    inbound = Inbound()
    inbound.answer(SWITCH)
    data = server_frame(TEXT, b"x" * 70_000)
    assert list(inbound.frames(data[:69_000])) == []
    assert list(inbound.frames(data[69_000:])) == [(TEXT, b"x" * 70_000)]


def test_a_refusal_is_handed_over_as_it_came():
    inbound = Inbound()
    assert inbound.answer(REFUSAL[:20]) is None
    assert inbound.answer(REFUSAL[20:]) == REFUSAL
    assert not inbound.upgraded


def test_an_answer_says_when_to_come_back():
    answer = Answer(REFUSAL)
    assert (answer.status, answer.reason) == (503, "rate")
    assert (answer.retry_ms, answer.ticket) == (2_100, "AbC-_9")
    assert str(answer) == "503 rate"


def test_an_answer_without_a_time_or_no_answer_at_all():
    answer = Answer(b'HTTP/1.1 401 Unauthorized\r\n\r\n{"error":"credential"}')
    assert (answer.status, answer.reason) == (401, "credential")
    assert (answer.retry_ms, answer.ticket) == (None, None)
    assert str(Answer(b"\x15\x03\x01")) == "0 unknown"


def test_a_ticket_is_shown_only_if_there_is_one():
    assert b"Tidegate-Ticket: abc\r\n" in handshake_request(b"jwt", "abc")
    assert b"Tidegate-Ticket" not in handshake_request(b"jwt")
    assert handshake_request(b"jwt").endswith(b"\r\n\r\n")


def test_what_a_device_reads_from_frames():
    welcome = (
        b'{"welcome":{"session":"s","credit":32,"resume":{"outbox":"w","seq":7},'
        b'"first_retry_ms":2000}}'
    )
    assert is_welcome(welcome)
    assert resume_of(welcome) == (7, 32)
    assert first_retry_ms_of(welcome) == 2_000
    assert first_retry_ms_of(b'{"welcome":{}}') is None
    assert ack_of(b'{"ack":1042,"credit":64}') == (1_042, 64)
    assert ack_of(welcome) is None
    assert is_hold(b'{"hold":{"reason":"stream"}}')
