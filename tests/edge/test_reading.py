"""However a stream of frames is cut into segments, a connection reads what the core alone reads.

The reference is the `websockets` core, given one frame at a time. The connection reads plain text
frames by itself, whole or many in a segment, and gives the core the rest in slices.
"""

import itertools
import math
import random
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode

from gateway.edge import connection as module
from gateway.edge.connection import PAUSED_BY_BUDGET, WebSocketConnection
from gateway.edge.context import ConnectionContext, ConnectionLimits
from gateway.edge.observer import NullObserver
from gateway.edge.side_traffic import SideBudget

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SIZE_MAX = 70_000
FREE = SideBudget(frames_per_s=1e9, frames_burst=10**9, bytes_per_s=1e9, bytes_burst=10**9)


class Transport:
    """A socket in memory."""

    def __init__(self):
        self.written = bytearray()
        self.reading = True
        self.eof = self.aborted = False

    def set_write_buffer_limits(self, high):
        pass

    def get_extra_info(self, _name):
        return None

    def can_write_eof(self):
        return True

    def write(self, data):
        assert not self.eof, "nothing is written after the end"
        self.written += data

    def write_eof(self):
        assert not self.eof
        self.eof = True

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    def abort(self):
        self.aborted = True


class Loop:
    """The time, and what is called soon."""

    def __init__(self):
        self.now = 0.0
        self.soon = []

    def time(self):
        return self.now

    def call_soon(self, callback):
        self.soon.append(callback)


class Wheel:
    def __init__(self):
        self.due_at = math.inf

    def schedule(self, _deadline, due_at):
        self.due_at = due_at

    def cancel(self, _deadline):
        self.due_at = math.inf


class Listening:
    """A handler that notes what it is told."""

    deadline = math.inf

    def __init__(self):
        self.heard = []

    def opened(self, connection):
        pass

    def received_text(self, text):
        self.heard.append(text)

    def received_binary(self, data):
        self.heard.append((data,))

    def on_keepalive(self):
        pass

    def closed(self, cause):
        self.heard.append(cause)


class Rig:
    """A connection that is open, on a socket in memory."""

    def __init__(self, side=FREE, **limits):
        self.loop, self.wheel, self.handler = Loop(), Wheel(), Listening()
        self.transport = Transport()
        context = ConnectionContext(
            limits=ConnectionLimits(
                frame_bytes_max=SIZE_MAX, side=side, keepalive_interval_s=1e9, **limits
            ),
            wheel=self.wheel,
            observer=NullObserver(),
            rng=random.Random(1),
            loop=self.loop,
            partings=None,
        )
        self.connection = WebSocketConnection(context, self)
        self.connection.connection_made(self.transport)
        self.connection.data_received(HANDSHAKE)
        assert self.connection.is_open
        self.transport.written.clear()

    def arrived(self, connection, *, anonymous):
        pass

    def left(self, connection):
        pass

    def admit(self, *_):
        return self.handler

    def feed(self, *segments):
        for segment in segments:
            if self.transport.reading:
                self.connection.data_received(segment)

    def sleep(self, seconds):
        """Time passes, and deadlines are met."""
        end = self.loop.now + seconds
        while self.wheel.due_at <= end and not self.transport.aborted:
            self.loop.now = max(self.loop.now, self.wheel.due_at)
            self.wheel.due_at = math.inf
            self.connection.on_due(self.loop.now)
            while self.loop.soon:
                self.loop.soon.pop(0)()
        self.loop.now = end

    @property
    def outcome(self):
        """All that was heard and said, and how it ended."""
        return self.handler.heard, bytes(self.transport.written), self.transport.eof

    def end(self):
        self.connection.connection_lost(None)


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
    st.binary(max_size=125),
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
    rig = Rig()
    rig.feed(*segments)
    rig.end()
    return rig.outcome


def _by_the_core_alone(pieces):
    with mock.patch.object(module, "text_at", return_value=None):
        return _ran(pieces)


CUTS = st.lists(st.integers(0, 200_000), max_size=12)
SMALL_CUTS = st.lists(st.integers(0, 160), max_size=12)


@settings(deadline=None)
@given(STREAMS, st.one_of(CUTS, SMALL_CUTS))
@example([Frame(Opcode.TEXT, b"a" * 100_000).serialize(mask=True)], [133])
@example([Frame(Opcode.TEXT, b"a" * 65_536).serialize(mask=True)], [133])
def test_however_a_stream_is_cut_it_is_read_as_the_core_alone_reads_it(frames, cuts):
    expected = _by_the_core_alone([b"".join(frames)])
    assert _ran(_cut(b"".join(frames), cuts)) == expected


@settings(deadline=None)
@given(st.lists(st.one_of(LAWFUL, CONTROL, fragmented(), CLOSE, OFFENCE), min_size=1, max_size=3))
def test_byte_by_byte_and_all_at_once_are_the_same(frames):
    whole = b"".join(frames)[:600]
    expected = _by_the_core_alone([whole])
    assert _ran([whole[place : place + 1] for place in range(len(whole))]) == expected


TIGHT = SideBudget(
    frames_per_s=10, frames_burst=20, bytes_per_s=10_000, bytes_burst=20_000, patience_s=60
)


@settings(deadline=None)
@given(st.lists(st.one_of(LAWFUL, CONTROL, fragmented()), min_size=1, max_size=60), CUTS)
def test_a_connection_that_is_slowed_hears_the_same_in_the_same_order(frames, cuts):
    whole = b"".join(frames)
    expected = _by_the_core_alone([whole])
    rig = Rig(TIGHT)
    for segment in _cut(whole, cuts):
        while not rig.transport.reading:
            rig.sleep(1)
        rig.feed(segment)
    for _ in range(120):
        rig.sleep(1)
    rig.end()
    assert rig.outcome == expected


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG])
def test_a_flood_is_read_slowly_and_then_ended_with_a_reason(opcode):
    rig = Rig(TIGHT)
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


def test_small_fragments_are_on_the_budget_and_large_ones_are_not():
    rig = Rig(TIGHT, fragments_max=1_000)
    large = Frame(Opcode.TEXT, b"a" * 1_024, fin=False).serialize(mask=True)
    more = Frame(Opcode.CONT, b"a" * 1_024, fin=False).serialize(mask=True)
    rig.feed(large + more * 50)
    assert rig.transport.reading
    small = Frame(Opcode.CONT, b"a", fin=False).serialize(mask=True)
    rig.feed(small * 40)
    assert not rig.transport.reading


def test_a_flood_behind_our_close_drops_the_connection():
    rig = Rig(TIGHT)
    rig.connection.close(1012, "{}", "drain")
    rig.feed(Frame(Opcode.PING, b"").serialize(mask=True) * 10_000)
    assert rig.transport.aborted
    assert rig.transport.written.count(b"\x8a\x00") < 100


def test_a_close_while_something_is_unread_does_not_wait_for_the_answer():
    rig = Rig(TIGHT)
    rig.feed(Frame(Opcode.PING, b"").serialize(mask=True) * 100)
    assert not rig.transport.reading
    rig.connection.close(1012, "{}", "drain")
    assert rig.transport.eof
    rig.end()
    assert rig.handler.heard == ["drain"]


def test_what_comes_while_something_is_unread_waits_behind_it():
    """A TLS transport may hand over what it had decrypted before it was paused."""
    rig = Rig(TIGHT)
    ping = Frame(Opcode.PING, b"").serialize(mask=True)
    rig.feed(ping * 30 + Frame(Opcode.TEXT, b"first").serialize(mask=True))
    rig.connection.data_received(Frame(Opcode.TEXT, b"second").serialize(mask=True))
    assert rig.handler.heard == []
    for _ in range(10):
        rig.sleep(1)
    assert rig.handler.heard == [b"first", b"second"]
    assert rig.transport.reading


def test_another_pause_outlasts_that_of_the_budget():
    rig = Rig(TIGHT)
    ping = Frame(Opcode.PING, b"").serialize(mask=True)
    rig.feed(ping * 30 + Frame(Opcode.TEXT, b"later").serialize(mask=True))
    rig.connection.pause_reading(module.PAUSED_BY_FULL_NODE)
    rig.sleep(60)
    assert rig.handler.heard == []
    assert not rig.transport.reading
    rig.connection.resume_reading(module.PAUSED_BY_FULL_NODE)
    rig.sleep(0)
    rig.loop.soon.pop(0)()
    assert rig.handler.heard == [b"later"]
    assert rig.transport.reading
    assert not rig.connection._paused_by & PAUSED_BY_BUDGET
