"""One WebSocket connection: the `websockets` Sans-I/O core driven by an asyncio protocol.

      HEAD ----> WAITING ----> OPEN ------------> CLOSING ------------> CLOSED
       |   parked   |  admitted  |   close sent      |   peer closed       ^
       |   refused  |            |                   |   or close timeout  |
       +------------+------------+-------------------+---------------------+

This is the production framing path; the conformance suite runs it with an echo handler. It knows
frames, limits, keepalive and buffers, and nothing of devices: a `Gate` decides who comes in, and a
`Handler` is told what was said.
"""

import asyncio
import enum
import http
import math
from typing import Final, Protocol, cast

from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN

from gateway.edge.context import ConnectionContext
from gateway.edge.core import FRAMING_CAUSES, Core, make_core, release_core
from gateway.edge.errors import Refusal
from gateway.edge.framing import Edges, close_frame, text_at, text_frame
from gateway.edge.handshake import Request, Upgrade, negotiate, read_request
from gateway.edge.knock import HEAD_END, Granted, Visitor
from gateway.edge.refusal import bad_request, close_of, render_refusal
from gateway.edge.side_traffic import SMALL_FRAGMENT_BYTES, SideTraffic
from gateway.session.errors import close_reason

_INTERNAL_ERROR: Final = 1011


class Handler(Protocol):
    """Who talks on an open connection."""

    deadline: float
    """Loop time at which `on_deadline` is wanted; infinity for never. Set before `touch`."""

    def opened(self, connection: "WebSocketConnection") -> None:
        """The handshake is done."""

    def received_text(self, text: bytes) -> None:
        """A whole text message, valid UTF-8."""

    def received_binary(self, data: bytes) -> None:
        """A whole binary message."""

    def on_deadline(self, now: float) -> None:
        """The deadline passed."""

    def on_keepalive(self) -> None:
        """A ping is about to be sent: the moment for news that can wait."""

    def closed(self, cause: str) -> None:
        """The connection is gone, or as good as. Called once."""


class Gate(Protocol):
    """Who may come in."""

    def arrived(self, connection: "WebSocketConnection", *, anonymous: bool) -> None:
        """A connection was made; if `anonymous`, nothing is known of it yet."""

    def admit(
        self, request: Request, address: str, visitor: Visitor, granted: Granted | None
    ) -> Handler | None:
        """The handler of an admitted connection, or None if `visitor` waits for an answer.

        Args:
            request: as the full parser read it.
            address: of the peer.
            visitor: who to tell, if there is no answer yet.
            granted: what the raw scan was let in on: it holds if the full parser agrees.

        Raises:
            Refusal: it is not admitted.
        """

    def hung_up(self, visitor: Visitor) -> None:
        """A visitor left while it waited for an answer."""

    def left(self, connection: "WebSocketConnection") -> None:
        """A connection is gone, admitted or not."""


class Phase(enum.Enum):
    HEAD = "head"
    WAITING = "waiting"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class WebSocketConnection(asyncio.Protocol):
    """One connection, from accept to close."""

    __slots__ = (
        "_awaiting_pong",
        "_cause",
        "_context",
        "_core",
        "_due_at",
        "_edges",
        "_fragments",
        "_fragments_text",
        "_gate",
        "_granted",
        "_handler",
        "_head",
        "_heard",
        "_opened_at",
        "_paused_by",
        "_phase",
        "_request",
        "_resume_at",
        "_side",
        "_transport",
        "_unread",
        "_upgrade",
        "due_tick",
    )

    def __init__(
        self,
        context: ConnectionContext,
        gate: Gate,
        head: bytes = b"",
        granted: Granted | None = None,
    ) -> None:
        """
        Args:
            context: shared by the connections of a listener.
            gate: who decides.
            head: what was read from the socket already.
            granted: what it was let in on, if the raw scan has seen to that.
        """
        self._context = context
        self._gate = gate
        self._phase = Phase.HEAD
        self._head: bytearray | None = bytearray(head)
        self._granted = granted
        self._request: Request | None = None
        self._upgrade: Upgrade | None = None
        self._core: Core | None = None
        self._handler: Handler | None = None
        self._transport: asyncio.Transport | None = None
        self._edges = Edges()
        self._side = SideTraffic(context.limits.side)
        self._unread = b""
        self._resume_at = math.inf
        self._fragments: list[bytes] | None = None
        self._fragments_text = False
        self._heard = True
        self._awaiting_pong = False
        self._paused_by = 0
        self._due_at = math.inf
        self._opened_at = 0.0
        self._cause = ""
        self.due_tick = -1

    # What a handler may do.

    @property
    def congested(self) -> bool:
        """Whether the peer does not read: what is sent now only waits here."""
        return bool(self._paused_by & PAUSED_BY_SLOW_READER)

    @property
    def is_open(self) -> bool:
        return self._phase is Phase.OPEN

    def send_text(self, text: bytes) -> None:
        """Send a text message; nothing if the connection is no longer open."""
        if self._phase is not Phase.OPEN:
            return
        core, transport = self._core, self._transport
        assert core is not None
        assert transport is not None
        if core.state is not OPEN:
            return  # the peer's close, or its offence, is right behind what is being handled
        if core.extensions:
            core.send_text(text)
            self._flush()
        else:
            # Without the core's objects: every ack of every device passes here.
            transport.write(text_frame(text))

    def close(self, code: int, reason: str, cause: str) -> None:
        """Start the closing handshake; `cause` is what metrics will say."""
        if self._phase is not Phase.OPEN:
            return
        if self._unread:
            # The peer's close comes behind more than it may say: read nothing more.
            self.fail(code, reason, cause)
            return
        core = self._core
        assert core is not None
        self._cause = self._cause or cause
        if core.state is OPEN:
            core.send_close(code, reason)
        self._begin_closing()
        self._flush()

    def fail(self, code: int, reason: str, cause: str) -> None:
        """The peer broke a rule: say why, read nothing more (RFC 6455 section 7.1.7)."""
        if self._phase is not Phase.OPEN:
            return
        core = self._core
        assert core is not None
        self._cause = self._cause or cause
        if not core.eof_sent:
            core.fail(code, reason)
        self._begin_closing()
        self._flush()

    def abort(self, cause: str) -> None:
        """Drop the connection at once."""
        self._cause = self._cause or cause
        if self._transport is not None:
            self._transport.abort()

    def pause_reading(self, reason: int) -> None:
        """Read no more until `resume_reading`, so that TCP slows the peer down.

        Args:
            reason: one of PAUSED_BY_*; reading goes on when none is left.
        """
        if not self._paused_by and self._transport is not None:
            self._transport.pause_reading()
        self._paused_by |= reason

    def resume_reading(self, reason: int) -> None:
        if self._paused_by & reason:
            self._paused_by &= ~reason
            if not self._paused_by and self._transport is not None:
                # What was sent meanwhile has not been heard yet.
                self._heard = True
                if self._unread:
                    self._context.loop.call_soon(self._read_rest)
                else:
                    self._transport.resume_reading()

    def spend(self, frames: int, size: int) -> bool:
        """Something came beside messages: count it, and slow the peer down if it was too much.

        Args:
            frames: how many, as a plain one costs.
            size: their bytes together.

        Returns:
            Whether the connection goes on.
        """
        now = self._context.loop.time()
        pause_s = self._side.spend(frames, size, now)
        if not pause_s:
            return True
        if self._phase is not Phase.OPEN:
            self._paused_by |= PAUSED_BY_BUDGET
            self.abort("flood")
            return False
        if pause_s == math.inf:
            reason = close_reason("flood", f"over {self._context.limits.side} beside messages")
            self.fail(1008, reason, "flood")
            return False
        self._context.observer.slowed()
        self.pause_reading(PAUSED_BY_BUDGET)
        self._resume_at = now + pause_s
        self._arm()
        return True

    def touch(self) -> None:
        """The handler's deadline has changed."""
        self._arm()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        context = self._context
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=context.limits.write_buffer_bytes_max)
        self._due_at = context.loop.time() + context.limits.head_timeout_s
        self._arm()
        self._gate.arrived(self, anonymous=self._granted is None)
        if self._head:
            self._read_head(b"")

    # Visitor of the gate

    def admitted(self, handler: object) -> None:
        if self._phase is Phase.WAITING:
            self._open(cast("Handler", handler))

    def refused(self, refusal: Refusal) -> None:
        if self._phase is Phase.WAITING:
            self._refuse(refusal)

    def data_received(self, data: bytes) -> None:
        if self._phase is Phase.OPEN:
            self._heard = True
            self._read_frames(data)
        elif self._phase is Phase.HEAD:
            self._read_head(data)
        elif self._phase is Phase.WAITING:
            # Talking before the answer: nothing we know does, and nothing is kept for it.
            self._gate.hung_up(self)
            self._refuse(bad_request("early", "bytes before the handshake was answered"))
        elif self._phase is Phase.CLOSING and self._core is not None:
            self._read_frames(data)

    def eof_received(self) -> bool:
        # Our side is closed in its turn: thousands may be cut at once. The core is not told, it has
        # nothing to answer. TLS knows no half-closed connection.
        transport = self._transport
        if transport is None or transport.get_extra_info("sslcontext") is not None:
            return False
        self._context.partings.add(transport)
        return True

    def connection_lost(self, _exc: Exception | None) -> None:
        was_open = self._phase in (Phase.OPEN, Phase.CLOSING) and self._handler is not None
        if self._phase is Phase.HEAD and self._cause == "":
            self._context.observer.refused("bad_request", "gone")
        waited = self._phase is Phase.WAITING
        self._phase = Phase.CLOSED
        if waited:
            self._gate.hung_up(self)
        self._context.wheel.cancel(self)
        handler, self._handler = self._handler, None
        core, self._core = self._core, None
        if core is not None:
            release_core(core)
        self._request = None
        self._upgrade = None
        self._granted = None
        self._head = None
        self._fragments = None
        self._unread = b""
        self._transport = None
        if was_open and handler is not None:
            cause = self._cause or "lost"
            self._context.observer.closed(cause, self._context.loop.time() - self._opened_at)
            handler.closed(cause)
        self._gate.left(self)

    def pause_writing(self) -> None:
        """The peer does not read: produce no more for it, and give it a while."""
        self.pause_reading(PAUSED_BY_SLOW_READER)
        self._due_at = self._context.loop.time() + self._context.limits.slow_reader_timeout_s
        self._arm()

    def resume_writing(self) -> None:
        self.resume_reading(PAUSED_BY_SLOW_READER)
        if self._phase is Phase.OPEN:
            self._awaiting_pong = False
            self._due_at = self._context.loop.time() + self._context.limits.keepalive_interval_s
            self._arm()

    # Deadline

    def on_due(self, now: float) -> None:
        """A deadline passed: of the head, the keepalive, the close, or the handler's own."""
        handler = self._handler
        if now >= self._resume_at:
            self._resume_at = math.inf
            self.resume_reading(PAUSED_BY_BUDGET)
        if handler is not None and self._phase is Phase.OPEN and now >= handler.deadline:
            handler.deadline = math.inf
            handler.on_deadline(now)
        if now >= self._due_at:
            if self._phase is Phase.HEAD:
                self._refuse(bad_request("head_timeout", "the request head took too long"))
            elif self._phase is Phase.CLOSING:
                self.abort("close_timeout")
            elif self._phase is Phase.OPEN:
                self._keep_alive(now)
        self._arm()

    def _arm(self) -> None:
        due_at = min(self._due_at, self._resume_at)
        if self._handler is not None and self._handler.deadline < due_at:
            due_at = self._handler.deadline
        if due_at < math.inf and self._phase is not Phase.CLOSED:
            self._context.wheel.schedule(self, due_at)

    def _keep_alive(self, now: float) -> None:
        limits = self._context.limits
        if self._paused_by & PAUSED_BY_SLOW_READER:
            self.abort("slow_reader")
            return
        if self._awaiting_pong and not self._heard and not self._paused_by:
            self.abort("half_open")
            return
        if self._awaiting_pong:
            self._awaiting_pong = False
            self._due_at = now + max(0.0, limits.keepalive_interval_s - limits.keepalive_timeout_s)
            return
        self._awaiting_pong = True
        self._heard = False
        self._due_at = now + limits.keepalive_timeout_s
        assert self._handler is not None
        assert self._core is not None
        self._handler.on_keepalive()
        if self._phase is Phase.OPEN:
            self._core.send_ping(b"")
            self._flush()

    # Opening handshake

    def _read_head(self, data: bytes) -> None:
        head = self._head
        assert head is not None
        searched = max(0, len(head) - 3) if data else 0
        head += data
        end = head.find(HEAD_END, searched)
        limit = self._context.limits.head_bytes_max
        if end < 0 and len(head) <= limit:
            return
        if end < 0 or end > limit:
            self._refuse(bad_request("head_size", f"the request head is over {limit} bytes"))
            return
        end += len(HEAD_END)
        self._head = None
        self._handshake(bytes(head[:end]), bytes(head[end:]))

    def _handshake(self, head: bytes, rest: bytes) -> None:
        """Ask the gate. From the question on, this visitor can be answered: at once or later."""
        context = self._context
        granted, self._granted = self._granted, None
        try:
            request = read_request(head)
            self._upgrade = negotiate(
                request,
                path=context.path,
                subprotocols=context.subprotocols,
                extensions=context.extensions,
            )
            self._request = request
            assert self._transport is not None
            peer = self._transport.get_extra_info("peername")
            self._phase = Phase.WAITING
            self._due_at = math.inf  # the gate bounds how long anybody waits
            handler = self._gate.admit(request, peer[0] if peer else "", self, granted)
        except Refusal as refusal:
            self._refuse(refusal)
            return
        if handler is not None:
            self._open(handler, rest)
        elif rest:
            self._gate.hung_up(self)
            self._refuse(bad_request("early", "bytes before the handshake was answered"))
        else:
            self._arm()

    def _open(self, handler: Handler, rest: bytes = b"") -> None:
        """Accept the handshake."""
        context, upgrade, transport = self._context, self._upgrade, self._transport
        assert upgrade is not None
        assert transport is not None
        self._request = self._upgrade = None
        self._core = make_core(context, upgrade.extensions)
        self._handler = handler
        self._phase = Phase.OPEN
        self._opened_at = context.loop.time()
        # A random first phase, or every device of a storm would be pinged in the same instant.
        interval_s = context.limits.keepalive_interval_s
        self._due_at = self._opened_at + context.rng.uniform(0, interval_s)
        transport.write(upgrade.response)
        context.observer.opened()
        handler.opened(self)
        self._arm()
        if rest and self._phase is Phase.OPEN:
            self.data_received(rest)

    def _refuse(self, refusal: Refusal) -> None:
        self._cause = "refused"
        self._head = None
        self._phase = Phase.CLOSING
        limits, transport = self._context.limits, self._transport
        self._context.observer.refused(refusal.error, refusal.reason)
        assert transport is not None
        transport.write(self._rendered(refusal))
        self._due_at = self._context.loop.time() + limits.close_timeout_s
        self._arm()
        self._end_of_stream(more_may_come=refusal.reason in _SAID_WHILE_SENDING)

    def _rendered(self, refusal: Refusal) -> bytes:
        """An HTTP answer; for who asked for it (browsers cannot read a 503), a close frame."""
        request, upgrade = self._request, self._upgrade
        self._request = self._upgrade = None
        if (
            upgrade is None
            or request is None
            or refusal.status not in _REFUSED_BY_CLOSE
            or "refusal=close" not in request.query.split("&")
        ):
            return render_refusal(refusal)
        return upgrade.response + close_frame(*close_of(refusal))

    # Frames

    def _read_frames(self, data: bytes) -> None:
        """Read what came, as far as the peer may be heard now; keep the rest."""
        if self._unread:
            self._unread += data
            return
        core, edges = self._core, self._edges
        assert core is not None
        position, end = 0, len(data)
        while position < end and not self._paused_by & PAUSED_BY_BUDGET:
            if (
                edges.at_edge
                and self._fragments is None
                and core.state is OPEN
                and not core.extensions
            ):
                found = text_at(data, position, self._context.limits.frame_bytes_max)
                if found is not None:
                    text, position = found
                    self._deliver(text, text=True)
                    continue
            if core.eof_sent:
                return  # it is no longer heard
            # One frame at a time: the core answers a close in the same breath, and what came
            # before it must have had its consequences.
            start, position = position, edges.advance(data, position)
            core.receive_data(data[start:position] if position - start < end else data)
            self._advance(core)
        if position < end:
            self._unread = data[position:]

    def _read_rest(self) -> None:
        """Reading goes on, with what was kept."""
        unread, self._unread = self._unread, b""
        if self._paused_by or self._core is None:
            self._unread = unread
            return
        self._read_frames(unread)
        if not self._paused_by and self._transport is not None:
            self._transport.resume_reading()

    def _advance(self, core: Core) -> None:
        """Act on what the core has parsed, then write what it wants written."""
        events = core.events_received()
        # Pongs first: what a handler sends does not pass through the core's queue.
        if core.writes:
            self._flush()
        frames = size = 0
        for event in events:
            frame = cast("Frame", event)  # after the head, events are frames
            if frame.opcode not in _MESSAGES or (
                len(frame.data) < SMALL_FRAGMENT_BYTES
                and not (frame.fin and frame.opcode is not Opcode.CONT)
            ):
                frames += 1
                size += len(frame.data)
            if self._phase is Phase.OPEN:
                self._on_frame(frame)
        if core.parser_exc is not None or core.close_rcvd is not None:
            self._on_core_closing(core)
        if frames:
            self.spend(frames, size)

    def _on_frame(self, frame: Frame) -> None:
        opcode, data = frame.opcode, frame.data
        if opcode is Opcode.TEXT:
            if frame.fin:
                self._deliver(bytes(data), text=True)
            else:
                self._fragments, self._fragments_text = [bytes(data)], True
        elif opcode is Opcode.BINARY:
            if frame.fin:
                self._deliver(bytes(data), text=False)
            else:
                self._fragments, self._fragments_text = [bytes(data)], False
        elif opcode is Opcode.CONT:
            fragments = self._fragments
            assert fragments is not None, "the core lets no continuation through without a start"
            fragments.append(bytes(data))
            if len(fragments) > self._context.limits.fragments_max:
                limit = self._context.limits.fragments_max
                reason = close_reason("fragments", f"over {limit} in one message")
                self.fail(1008, reason, "fragments")
            elif frame.fin:
                self._fragments = None
                self._deliver(b"".join(fragments), text=self._fragments_text)

    def _deliver(self, data: bytes, *, text: bool) -> None:
        handler = self._handler
        assert handler is not None
        if not text:
            handler.received_binary(data)
            return
        if not data.isascii():
            try:
                data.decode()
            except UnicodeDecodeError as exc:
                reason = close_reason("utf8", f"invalid UTF-8 at byte {exc.start}")
                self.fail(1007, reason, "utf8")
                return
        handler.received_text(data)

    def _on_core_closing(self, core: Core) -> None:
        """The peer closed, or broke the framing and the core has failed the connection."""
        if core.parser_exc is not None:
            self._cause = self._cause or FRAMING_CAUSES.get(
                core.close_sent.code if core.close_sent is not None else 1006, "framing"
            )
        else:
            self._cause = self._cause or "device"
        if self._phase is Phase.OPEN:
            self._begin_closing()

    def _begin_closing(self) -> None:
        self._phase = Phase.CLOSING
        self._unread = b""
        self._resume_at = math.inf
        if self._paused_by:
            self._paused_by = 0
            if self._transport is not None:
                self._transport.resume_reading()  # to see the peer's close
        self._due_at = self._context.loop.time() + self._context.limits.close_timeout_s
        self._arm()

    def _flush(self) -> None:
        transport, core = self._transport, self._core
        if transport is None or core is None:
            return
        for data in core.data_to_send():
            if data:
                transport.write(data)
            else:
                self._end_of_stream(more_may_come=core.close_rcvd is None)

    def _end_of_stream(self, *, more_may_come: bool) -> None:
        """Half-close and let the peer finish.

        Closing with unread input resets the connection, and the reset can overtake our reason. TLS
        knows no half-closed connection; there, what may still come is read and dropped for a while.
        """
        transport = self._transport
        assert transport is not None
        if transport.can_write_eof():
            transport.write_eof()
        elif more_may_come:
            now, limits = self._context.loop.time(), self._context.limits
            self._due_at = min(self._due_at, now + limits.tls_linger_s)
            self._arm()
        else:
            transport.close()


PAUSED_BY_SLOW_READER: Final = 1
PAUSED_BY_FULL_NODE: Final = 2
PAUSED_BY_DRAIN: Final = 4
PAUSED_BY_RESUME: Final = 8
PAUSED_BY_BUDGET: Final = 16

_MESSAGES: Final = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)

_SAID_WHILE_SENDING: Final = ("early", "head_size")
"""Reasons of refusals whose peers are likely to be sending still."""
_REFUSED_BY_CLOSE: Final = (
    http.HTTPStatus.UNAUTHORIZED,
    http.HTTPStatus.FORBIDDEN,
    http.HTTPStatus.TOO_MANY_REQUESTS,
    http.HTTPStatus.SERVICE_UNAVAILABLE,
)
