"""Frame boundaries, compared with frames that the library makes, however they are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from gateway.edge.connection.framing import Edges, ends_empty_pong, text_at, text_frame

OPCODES = st.sampled_from([Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.PING])
FRAMES = st.builds(
    lambda opcode, payload, fin: Frame(opcode, payload, fin or opcode is Opcode.PING),
    OPCODES,
    st.one_of(st.binary(max_size=125), st.binary(min_size=120, max_size=300)),
    st.booleans(),
)


def wire(frame):
    if frame.opcode is Opcode.PING:
        frame = Frame(Opcode.PING, frame.data[:125])
    return frame.serialize(mask=True)


@given(
    st.one_of(st.binary(max_size=300), st.integers(65_500, 65_600).map(bytes)),
    st.binary(max_size=9),
    st.binary(max_size=9),
)
def test_a_whole_text_frame_is_its_payload(payload, before, after):
    data = Frame(Opcode.TEXT, payload).serialize(mask=True)
    found = text_at(before + data + after, len(before), 100_000)
    assert found == (payload, len(before) + len(data))


@given(st.binary(max_size=9), st.binary(max_size=9))
def test_the_answer_to_an_empty_ping_ends_behind_its_masking_key(before, after):
    pong = Frame(Opcode.PONG, b"").serialize(mask=True)
    assert ends_empty_pong(before + pong + after, len(before)) == len(before + pong)
    assert ends_empty_pong(before + pong[:-1], len(before)) == 0


@given(FRAMES | st.builds(Frame, st.just(Opcode.PONG), st.binary(min_size=1, max_size=125)))
def test_no_other_frame_is_the_answer_to_an_empty_ping(frame):
    assert ends_empty_pong(wire(frame), 0) == 0


@given(FRAMES, st.integers(0, 400))
def test_anything_but_a_whole_text_frame_is_left_to_the_core(frame, cut):
    data = wire(frame)
    if frame.opcode is not Opcode.TEXT or not frame.fin:
        assert text_at(data, 0, 1_000) is None
    if cut < len(data):
        assert text_at(data[:cut], 0, 1_000) is None


@pytest.mark.parametrize(
    "data",
    [
        Frame(Opcode.TEXT, b"hello").serialize(mask=False),
        b"\xc1\x85\x00\x00\x00\x00hello",
        Frame(Opcode.TEXT, b"x" * 51).serialize(mask=True),
        b"\x81\xfe\x00",
        b"",
    ],
    ids=["unmasked", "reserved", "too_large", "cut", "empty"],
)
def test_offences_are_left_to_the_core(data):
    assert text_at(data, 0, 50) is None


@given(st.lists(FRAMES, max_size=8), st.lists(st.integers(1, 200), min_size=1, max_size=60))
def test_the_edges_of_frames_are_found_however_they_are_cut(frames, sizes):
    whole = b"".join(map(wire, frames))
    ends, position = [0], 0
    for frame in frames:
        position += len(wire(frame))
        ends.append(position)
    edges, begin = Edges(), 0
    for size in sizes:
        piece, position = whole[begin : begin + size], 0
        while position < len(piece):
            next_end = min(end for end in ends if end > begin + position)
            position = edges.advance(piece, position)
            assert begin + position == min(next_end, begin + len(piece))
            assert edges.at_edge == (begin + position in ends)
        begin += len(piece)


@pytest.mark.parametrize("size", [0, 125, 126, 300, 65_535, 65_536])
@pytest.mark.parametrize("mask", [True, False])
def test_a_head_that_comes_byte_by_byte_is_put_together(size, mask):
    data = Frame(Opcode.BINARY, bytes(size)).serialize(mask=mask)
    pieces = [data[place : place + 1] for place in range(min(20, len(data)))] + [data[20:]]
    edges, came = Edges(), 0
    for piece in filter(None, pieces):
        assert edges.advance(piece, 0) == len(piece)
        came += len(piece)
        assert edges.at_edge == (came == len(data))


@given(st.binary(max_size=60), st.lists(st.integers(1, 9), min_size=1))
def test_noise_causes_no_error(noise, sizes):
    edges = Edges()
    for size in sizes:
        piece, noise = noise[:size], noise[size:]
        position = 0
        while position < len(piece):
            position = edges.advance(piece, position)


@given(st.one_of(st.binary(max_size=300), st.sampled_from([65_535, 65_536, 100_000]).map(bytes)))
def test_a_text_frame_equals_that_of_the_library(text):
    assert text_frame(text) == Frame(Opcode.TEXT, text).serialize(mask=False)
