"""However a stream of frames is cut into segments, a connection reads what the core alone reads.

The reference is the `websockets` core, given one frame at a time. The connection reads plain text
frames and empty pongs by itself, whole or many in a segment, and gives the core the rest in slices.
"""

import itertools
import sys
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode

from gateway.edge.connection import connection as connection_module
from gateway.edge.connection import reader as module
from gateway.edge.connection.core import make_core
from gateway.edge.connection.side_traffic import SideBudget
from gateway.edge.ports import PAUSED_BY_BUDGET, PAUSED_BY_FULL_NODE
from support.in_memory import SIZE_MAX, UNBOUNDED, Line, Listening


class Piece(bytes):
    """Bytes of a frame, too many to be shown."""

    def __repr__(self):
        shown = bytes(self[:20])
        return repr(shown) if len(self) <= 20 else f"{shown!r}... of {len(self)}"


PAYLOADS = st.one_of(
    st.binary(max_size=10),
    st.text(max_size=10).map(str.encode),
    st.sampled_from([0, 1, 124, 125, 126, 127, 128, 130, 133, 65_535, 65_536, SIZE_MAX]).map(
        lambda size: b"a" * size
    ),
    st.just(b"a" * (SIZE_MAX + 1)),
)
LAWFUL = st.builds(
    lambda opcode, payload: Piece(Frame(opcode, payload).serialize(mask=True)),
    st.sampled_from([Opcode.TEXT, Opcode.TEXT, Opcode.TEXT, Opcode.BINARY]),
    PAYLOADS,
)
CONTROL = st.builds(
    lambda opcode, payload: Piece(Frame(opcode, payload).serialize(mask=True)),
    st.sampled_from([Opcode.PING, Opcode.PONG]),
    st.just(b"") | st.binary(max_size=125),
)
CLOSE = st.just(Frame(Opcode.CLOSE, Close(1000, "bye").serialize()).serialize(mask=True))
FRAGMENT = st.builds(
    lambda opcode, payload, fin: Piece(Frame(opcode, payload, fin).serialize(mask=True)),
    st.sampled_from([Opcode.TEXT, Opcode.CONT, Opcode.CONT]),
    st.binary(max_size=20).filter(bytes.isascii),
    st.booleans(),
)


@st.composite
def fragmented(draw):
    """A message in fragments, with control frames in between."""
    pieces = draw(st.lists(st.text(max_size=5).map(str.encode), min_size=2, max_size=5))
    wire = b""
    for number, piece in enumerate(pieces):
        opcode = Opcode.CONT if number else Opcode.TEXT
        wire += Frame(opcode, piece, number == len(pieces) - 1).serialize(mask=True)
        wire += draw(st.one_of(st.just(b""), CONTROL))
    return Piece(wire)


OFFENCE = st.one_of(
    st.binary(min_size=2, max_size=20),
    st.just(Frame(Opcode.TEXT, b"unmasked").serialize(mask=False)),
    st.just(b"\xc1\x80\x00\x00\x00\x00"),
    st.just(b"\x81\xfe\x00\x05\x00\x00\x00\x00hello"),
    st.just(b"\x81\xff" + (119).to_bytes(8, "big") + bytes(123)),
    st.just(b"\x81\xff" + (2**63).to_bytes(8, "big") + bytes(4)),
    st.just(b"\x89\xfe\x00\x7e" + bytes(130)),
    st.just(b"\x09\x80" + bytes(4)),
)
STREAMS = st.lists(
    st.one_of(LAWFUL, LAWFUL, LAWFUL, CONTROL, fragmented(), FRAGMENT, CLOSE, OFFENCE),
    min_size=1,
    max_size=8,
)


def _cut(whole, cuts):
    places = sorted({cut % (len(whole) + 1) for cut in cuts} | {0, len(whole)})
    return [whole[begin:end] for begin, end in itertools.pairwise(places)]


def _ran(segments):
    rig = Line(UNBOUNDED)
    rig.feed(*segments)
    rig.end()
    return rig.outcome


def _by_the_core_alone(pieces):
    with (
        mock.patch.object(module, "text_at", return_value=None),
        mock.patch.object(module, "ends_empty_pong", return_value=0),
    ):
        return _ran(pieces)


CUTS = st.lists(st.integers(0, 200_000), max_size=12)
SMALL_CUTS = st.lists(st.integers(0, 160), max_size=12)


@pytest.mark.fuzz
@settings(deadline=None)
@given(STREAMS, st.one_of(CUTS, SMALL_CUTS))
@example([Frame(Opcode.TEXT, b"a" * 100_000).serialize(mask=True)], [133])
@example([Frame(Opcode.TEXT, b"a" * 65_536).serialize(mask=True)], [133])
def test_however_a_stream_is_cut_it_is_read_as_the_core_alone_reads_it(frames, cuts):
    expected = _by_the_core_alone([b"".join(frames)])
    assert _ran(_cut(b"".join(frames), cuts)) == expected


@pytest.mark.fuzz
@settings(deadline=None)
@given(st.lists(st.one_of(LAWFUL, CONTROL, fragmented(), CLOSE, OFFENCE), min_size=1, max_size=3))
def test_byte_by_byte_and_all_at_once_are_the_same(frames):
    whole = b"".join(frames)[:600]
    expected = _by_the_core_alone([whole])
    assert _ran([whole[place : place + 1] for place in range(len(whole))]) == expected


TIGHT = SideBudget(
    frames_per_s=10, frames_burst=20, bytes_per_s=10_000, bytes_burst=20_000, patience_s=60
)


@pytest.mark.fuzz
@settings(deadline=None)
@given(st.lists(st.one_of(LAWFUL, CONTROL, fragmented()), min_size=1, max_size=60), CUTS)
def test_a_connection_that_is_slowed_hears_the_same_in_the_same_order(frames, cuts):
    whole = b"".join(frames)
    expected = _by_the_core_alone([whole])
    rig = Line(TIGHT)
    for segment in _cut(whole, cuts):
        while not rig.transport.reading and not rig.transport.aborted:
            rig.sleep(1)
        rig.feed(segment)
    for _ in range(120):
        rig.sleep(1)
    rig.end()
    assert rig.outcome == expected


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG])
def test_a_flood_is_read_slowly_and_then_ended_with_a_reason(opcode):
    rig = Line(TIGHT)
    flood = Frame(opcode, b"").serialize(mask=True) * 10_000
    rig.feed(flood)
    assert not rig.transport.reading
    rig.sleep(5)
    pongs = rig.transport.written.count(b"\x8a\x00")
    assert pongs <= 20 + 5 * 10 + 1 if opcode is Opcode.PING else pongs == 0
    assert rig.connection.is_open
    while rig.connection.is_open:
        rig.sleep(1)
        rig.feed(flood)
        assert rig.loop.now < 100
    assert b'{"error":"flood","detail":"over 10 frames or 10000 bytes a second' in bytes(
        rig.transport.written
    )
    assert rig.transport.eof
    rig.end()
    assert rig.handler.heard == ["flood"]


def test_a_core_is_made_for_the_first_frame_that_needs_it():
    """It would be a quarter of the memory of an idle connection."""
    with mock.patch.object(connection_module, "make_core", side_effect=make_core) as made:
        rig = Line(UNBOUNDED)
        rig.feed(MESSAGE, Frame(Opcode.PONG, b"").serialize(mask=True) + MESSAGE)
        rig.connection.send_text(b"{}")
        assert made.call_count == 0
        rig.feed(PING, PING)
        assert made.call_count == 1
    assert rig.outcome[:2] == ([b"{}", b"{}"], b"\x81\x02{}" + b"\x8a\x00" * 2)


def test_a_connection_that_is_lost_without_a_core_has_no_close_code():
    rig = Line(UNBOUNDED)
    with mock.patch.object(rig.handler, "closed") as closed:
        rig.end()
    closed.assert_called_once_with("lost", 1006)


def test_small_fragments_are_on_the_budget_and_large_ones_are_not():
    rig = Line(TIGHT, fragments_max=1_000)
    large = Frame(Opcode.TEXT, b"a" * 1_024, fin=False).serialize(mask=True)
    more = Frame(Opcode.CONT, b"a" * 1_024, fin=False).serialize(mask=True)
    rig.feed(large + more * 50)
    assert rig.transport.reading
    small = Frame(Opcode.CONT, b"a", fin=False).serialize(mask=True)
    rig.feed(small * 40)
    assert not rig.transport.reading


PING = Frame(Opcode.PING, b"").serialize(mask=True)
MESSAGE = Frame(Opcode.TEXT, b"{}").serialize(mask=True)


@pytest.mark.parametrize("frame", [PING, MESSAGE], ids=["ping", "message"])
def test_a_flood_behind_our_close_is_not_read_on(frame):
    rig = Line(TIGHT)
    rig.connection.close(1012, "{}", "drain")
    rig.feed(frame * 10_000)
    assert not rig.transport.reading
    assert not rig.transport.aborted, "our close may not be read yet"
    assert rig.transport.written.count(b"\x8a\x00") < 100
    rig.sleep(60)
    assert rig.transport.aborted
    rig.end()
    assert rig.handler.heard == ["drain"]


def test_what_a_peer_sends_after_its_offence_is_dropped_and_bounded():
    rig = Line(TIGHT)
    rig.feed(Frame(Opcode.TEXT, b"unmasked").serialize(mask=False))
    assert rig.transport.eof
    rig.feed(b"x" * 5_000)
    assert rig.transport.reading, "a reset must not overtake our close"
    for _ in range(10):
        if rig.transport.reading:
            rig.feed(b"x" * 5_000)
    assert not rig.transport.reading
    rig.sleep(60)
    assert rig.transport.aborted


def test_a_close_while_something_is_unread_does_not_wait_for_the_answer():
    rig = Line(TIGHT)
    rig.feed(Frame(Opcode.PING, b"").serialize(mask=True) * 100)
    assert not rig.transport.reading
    rig.connection.close(1012, "{}", "drain")
    assert rig.transport.eof
    rig.end()
    assert rig.handler.heard == ["drain"]


def test_what_comes_while_something_is_unread_waits_behind_it():
    """A TLS transport may hand over what it had decrypted before it was paused."""
    rig = Line(TIGHT)
    ping = Frame(Opcode.PING, b"").serialize(mask=True)
    rig.feed(ping * 30 + Frame(Opcode.TEXT, b"first").serialize(mask=True))
    rig.connection.data_received(Frame(Opcode.TEXT, b"second").serialize(mask=True))
    assert rig.handler.heard == []
    for _ in range(10):
        rig.sleep(1)
    assert rig.handler.heard == [b"first", b"second"]
    assert rig.transport.reading


def test_another_pause_outlasts_that_of_the_budget():
    rig = Line(TIGHT)
    ping = Frame(Opcode.PING, b"").serialize(mask=True)
    rig.feed(ping * 30 + Frame(Opcode.TEXT, b"later").serialize(mask=True))
    rig.connection.pause_reading(PAUSED_BY_FULL_NODE)
    rig.sleep(60)
    assert rig.handler.heard == []
    assert not rig.transport.reading
    rig.connection.resume_reading(PAUSED_BY_FULL_NODE)
    rig.sleep(0)
    rig.loop.soon.pop(0)()
    assert rig.handler.heard == [b"later"]
    assert rig.transport.reading
    assert not rig.connection.paused_by & PAUSED_BY_BUDGET


class Lulled(Listening):
    """A handler that notes whether its connection was congested at each lull."""

    def __init__(self):
        super().__init__()
        self.lulls = []

    def opened(self, connection):
        self.connection = connection

    def on_lull(self):
        self.lulls.append(self.connection.congested)


def test_the_handler_hears_at_once_that_its_peer_reads_again():
    handler = Lulled()
    line = Line(handler=handler)
    line.connection.pause_writing()
    assert line.connection.congested
    assert handler.lulls == []
    line.connection.resume_writing()
    assert handler.lulls == [False]


def test_a_lone_message_and_its_ack_pass_without_the_library():
    """Each call on this way is in the time that a quiet device waits for its ack."""
    rig = Line()
    frame = Frame(Opcode.TEXT, b"message").serialize(mask=True)
    files = set()

    def note(frame, event, _arg):
        if event == "call":
            files.add(frame.f_code.co_filename)

    sys.setprofile(note)
    try:
        rig.connection.data_received(frame)
        rig.connection.send_text(b"ack")
    finally:
        sys.setprofile(None)
    assert rig.handler.heard == [b"message"]
    assert rig.transport.written == Frame(Opcode.TEXT, b"ack").serialize(mask=False)
    assert not [name for name in files if "websockets" in name]


def test_after_the_close_of_the_peer_nothing_passes():
    class Answering(Listening):
        def opened(self, connection):
            self.connection = connection

        def received_text(self, text):
            super().received_text(text)
            self.connection.send_text(b"ack")

    rig = Line(handler=Answering())
    close = Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True)
    late = Frame(Opcode.TEXT, b"late").serialize(mask=True)
    rig.feed(close + late)
    rig.connection.send_text(b"ack")
    assert rig.handler.heard == []
    assert rig.transport.written == Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=False)
