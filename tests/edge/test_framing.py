"""Frame boundaries, held against frames of the library's own making, however they are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from gateway.edge.framing import ALIGNED, UNKNOWN, owed_after, sole_text, text_frame

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


@given(st.one_of(st.binary(max_size=300), st.binary(min_size=65_500, max_size=65_600)))
def test_a_whole_text_frame_is_its_payload(payload):
    data = Frame(Opcode.TEXT, payload).serialize(mask=True)
    expected = payload if len(payload) < 65_536 else None  # the core's, with its 64-bit length
    assert sole_text(data, 100_000) == expected


@given(FRAMES, st.binary(max_size=20), st.integers(0, 400))
def test_whatever_is_not_exactly_one_whole_text_frame_is_left_to_the_core(frame, more, cut):
    data = wire(frame)
    if frame.opcode is not Opcode.TEXT or not frame.fin:
        assert sole_text(data, 1_000) is None
    if more:
        assert sole_text(data + more, 1_000) is None
    if cut < len(data):
        assert sole_text(data[:cut], 1_000) is None


@pytest.mark.parametrize(
    "data",
    [
        Frame(Opcode.TEXT, b"hello").serialize(mask=False),
        b"\xc1\x85\x00\x00\x00\x00hello",
        Frame(Opcode.TEXT, b"x" * 51).serialize(mask=True),
        b"\x81\xfe\x00\x05\x00\x00\x00\x00hello",  # a length longer than it need be
        b"\x81\xfe\x00",
        b"",
    ],
    ids=["unmasked", "reserved", "too_large", "long_length", "cut", "empty"],
)
def test_offences_are_left_to_the_core(data):
    assert sole_text(data, 50) is None


@given(st.lists(FRAMES, max_size=6), st.lists(st.integers(1, 200), min_size=1, max_size=40))
def test_a_boundary_is_never_seen_where_there_is_none(frames, sizes):
    whole = b"".join(map(wire, frames))
    boundaries, position = {0}, 0
    for frame in frames:
        position += len(wire(frame))
        boundaries.add(position)
    owed, position = ALIGNED, 0
    for size in sizes:
        owed = owed_after(owed, whole[position : position + size])
        position = min(len(whole), position + size)
        if owed == UNKNOWN:
            return
        following = min(at for at in boundaries if at >= position)
        assert owed == following - position


@given(st.one_of(st.binary(max_size=300), st.sampled_from([65_535, 65_536, 100_000]).map(bytes)))
def test_a_text_frame_is_what_the_library_would_write(text):
    assert text_frame(text) == Frame(Opcode.TEXT, text).serialize(mask=False)
