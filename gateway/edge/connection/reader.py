"""Reads the frames of an open connection: bytes in, whole messages to the handler.

Plain text frames and the answers to our pings, nearly all that devices send, are read from the
packet itself (`framing.py`). The `websockets` Sans-I/O core reads the rest, one frame at a time, so
that what is read never depends on how TCP cut it.
"""

from typing import Final, Protocol, cast

from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN

from gateway.edge.connection.context import ConnectionLimits
from gateway.edge.connection.core import Core
from gateway.edge.connection.framing import Edges, ends_empty_pong, text_at
from gateway.edge.connection.side_traffic import SMALL_FRAGMENT_BYTES
from gateway.edge.ports import PAUSED_BY_BUDGET, Handler
from gateway.session.errors import PolicyViolation

_MESSAGES: Final = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


class Line(Protocol):
    """The connection, as its reader sees it."""

    paused_by: int

    @property
    def core(self) -> Core:
        """The core of the connection. It is made when it is first asked for: it is a quarter of the
        memory of an idle connection, and few need it before their close.
        """

    @property
    def is_open(self) -> bool:
        """Whether the handler may be told anything."""

    def fail(self, code: int, reason: str, cause: str) -> None:
        """Close because the peer broke a rule."""

    def spend(self, frames: int, size: int) -> bool:
        """Count what came beside messages."""

    def flush(self) -> None:
        """Write what the core wants written."""

    def core_closing(self) -> None:
        """The peer closed, or broke the framing and the core has failed the connection."""


class Reader:
    """What one connection has read, and not yet given to its handler."""

    __slots__ = (
        "_edges",
        "_fragments",
        "_handler",
        "_limits",
        "_line",
        "_text_fragments",
        "plain",
        "unread",
    )

    def __init__(
        self, line: Line, handler: Handler, limits: ConnectionLimits, *, plain: bool
    ) -> None:
        """
        Args:
            line: the connection.
            handler: is told what came.
            limits: bounds of the connection.
            plain: whether the connection has no extensions.
        """
        self._line = line
        self._handler = handler
        self._limits = limits
        self._edges = Edges()
        self._fragments: list[bytes] | None = None
        self._text_fragments = False
        self.unread = b""
        """What came while the peer was slowed down."""
        self.plain = plain
        """Whether text passes without the core, in and out: the connection is open and has no
        extensions. Nearly all text does, and each frame asks."""

    def read(self, data: bytes) -> None:
        """Read what came, as far as the peer may be heard now; keep the rest."""
        if self.unread:
            self.unread += data
            return
        edges, line = self._edges, self._line
        position, end = 0, len(data)
        while position < end and not line.paused_by & PAUSED_BY_BUDGET:
            if self.plain and edges.at_edge and self._fragments is None:
                found = text_at(data, position, self._limits.frame_bytes_max)
                if found is not None:
                    text, position = found
                    self._handler.received_text(text)
                    continue
                if pong_end := ends_empty_pong(data, position):
                    position = pong_end
                    line.spend(1, 0)
                    continue
            core = line.core
            if core.eof_sent:
                line.spend(0, end - position)  # the peer is no longer heard; to read it costs still
                return
            # One frame at a time: the core answers a close at once, and what came before that
            # close must have had its consequences.
            start, position = position, edges.advance(data, position)
            core.receive_data(data[start:position] if position - start < end else data)
            self._advance()
        if position < end:
            self.unread = data[position:]

    def read_kept(self) -> None:
        """Read what was kept while the peer was slowed down."""
        unread, self.unread = self.unread, b""
        self.read(unread)

    def release(self) -> None:
        """The connection is gone: let go of it, so that no cycle is left."""
        self.unread = b""
        self._fragments = None
        del self._line, self._handler

    def _advance(self) -> None:
        """Act on what the core has parsed, then write what it wants written."""
        core, line = self._line.core, self._line
        self.plain = self.plain and core.state is OPEN
        events = core.events_received()
        # Pongs first: what a handler sends does not pass through the core's queue.
        if core.writes:
            line.flush()
        count = size = 0
        for event in events:
            frame = cast("Frame", event)  # after the head, events are frames
            is_open = line.is_open
            if (
                not is_open  # no credit bounds messages any more
                or frame.opcode not in _MESSAGES
                or (
                    len(frame.data) < SMALL_FRAGMENT_BYTES
                    and not (frame.fin and frame.opcode is not Opcode.CONT)
                )
            ):
                count += 1
                size += len(frame.data)
            if is_open:
                self._take(frame)
        if core.parser_exc is not None or core.close_rcvd is not None:
            line.core_closing()
        if count:
            line.spend(count, size)

    def _take(self, frame: Frame) -> None:
        opcode = frame.opcode
        if opcode is Opcode.CONT:
            self._take_fragment(frame)
        elif opcode is Opcode.TEXT or opcode is Opcode.BINARY:
            if frame.fin:
                self._deliver(bytes(frame.data), text=opcode is Opcode.TEXT)
            else:
                self._fragments = [bytes(frame.data)]
                self._text_fragments = opcode is Opcode.TEXT

    def _take_fragment(self, frame: Frame) -> None:
        fragments, limit = self._fragments, self._limits.fragments_max
        assert fragments is not None, "the core refuses a continuation without a start"
        fragments.append(bytes(frame.data))
        if len(fragments) > limit:
            offence = PolicyViolation("fragments", f"over {limit} in one message")
            self._line.fail(offence.close_code, offence.reason, offence.error)
        elif frame.fin:
            self._fragments = None
            self._deliver(b"".join(fragments), text=self._text_fragments)

    def _deliver(self, data: bytes, *, text: bool) -> None:
        if text:
            self._handler.received_text(data)
        else:
            self._handler.received_binary(data)
