"""One open WebSocket connection: the `websockets` Sans-I/O core driven by an asyncio protocol.

  OPEN ------------> CLOSING -------------> CLOSED
     close sent, or     |  peer closed, or     ^
     the peer is gone   |  close timeout       |
                        +----------------------+

This is the production framing path; the conformance suite runs it with an echo handler. It knows
limits, keepalive and buffers, and nothing of devices: a `Handler` is told what came. `opening.py`
makes it when the gate has admitted the device; `reader.py` reads its frames.
"""

import asyncio
import enum
import math

from websockets.extensions import Extension
from websockets.protocol import OPEN

from gateway.edge.connection.context import ConnectionContext
from gateway.edge.connection.core import (
    FRAMING_CAUSES,
    LOST,
    Core,
    close_code,
    make_core,
    release_core,
)
from gateway.edge.connection.ending import end_of_stream, peer_ended
from gateway.edge.connection.framing import EMPTY_PING, text_frame
from gateway.edge.connection.keepalive import Keepalive, Step
from gateway.edge.connection.reader import Reader
from gateway.edge.connection.side_traffic import SideTraffic
from gateway.edge.ports import PAUSED_BY_BUDGET, PAUSED_BY_SLOW_READER, Handler
from gateway.session.errors import PolicyViolation


class Phase(enum.Enum):
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class WebSocketConnection(asyncio.Protocol):
    """One connection, from its handshake to its close."""

    __slots__ = (
        "_cause",
        "_context",
        "_core",
        "_due_at",
        "_handler",
        "_keepalive",
        "_phase",
        "_reader",
        "_side",
        "_transport",
        "due_tick",
        "paused_by",
    )

    def __init__(
        self,
        context: ConnectionContext,
        transport: asyncio.Transport,
        handler: Handler,
        extensions: list[Extension],
    ) -> None:
        """
        Args:
            context: shared by the connections of a listener.
            transport: on which the handshake was accepted.
            handler: speaks with the device.
            extensions: agreed on in the handshake.
        """
        self._context = context
        self._transport = transport
        self._handler: Handler | None = handler
        self._core = make_core(context, extensions) if extensions else None
        self._reader = Reader(self, handler, context.limits, plain=not extensions)
        self._side = SideTraffic(context.limits.side)
        self._keepalive = Keepalive(context.loop.time())
        self._phase = Phase.OPEN
        self._cause = ""
        self.paused_by = 0
        self._due_at = math.inf
        self.due_tick = -1

    def open(self, rest: bytes) -> None:
        """Begin, with what the peer sent behind its handshake."""
        context, handler = self._context, self._handler
        assert handler is not None
        # A random first phase, or every device of a storm would be pinged in the same instant.
        interval_s = context.limits.keepalive_interval_s
        self._due_at = self._keepalive.opened_at + context.rng.uniform(0, interval_s)
        context.observer.opened()
        handler.opened(self)
        self._arm()
        if rest and self._phase is Phase.OPEN:
            self.data_received(rest)

    # What a handler may do (`ports.Connection`)

    @property
    def congested(self) -> bool:
        return bool(self.paused_by & PAUSED_BY_SLOW_READER)

    @property
    def is_open(self) -> bool:
        return self._phase is Phase.OPEN

    def send_text(self, text: bytes) -> None:
        if self._reader.plain:
            # Without the core's objects: every ack of every device passes here.
            self._transport.write(text_frame(text))
        elif self._phase is Phase.OPEN and self.core.state is OPEN:
            # Where the core is not open, the peer's close, or its offence, is right behind what is
            # being handled.
            self.core.send_text(text)
            self.flush()

    def close(self, code: int, reason: str, cause: str) -> None:
        if self._phase is not Phase.OPEN:
            return
        if self._reader.unread:
            # The peer's close comes behind more than it may say: read nothing more.
            self.fail(code, reason, cause)
            return
        self._cause = self._cause or cause
        if self.core.state is OPEN:
            self.core.send_close(code, reason)
        self._begin_closing()
        self.flush()

    def fail(self, code: int, reason: str, cause: str) -> None:
        if self._phase is not Phase.OPEN:
            return
        self._cause = self._cause or cause
        if not self.core.eof_sent:
            self.core.fail(code, reason)
        self._begin_closing()
        self.flush()

    def abort(self, cause: str) -> None:
        """Drop the connection at once."""
        if self._phase is not Phase.CLOSED:
            self._cause = self._cause or cause
            self._transport.abort()

    def pause_reading(self, reason: int) -> None:
        if not self.paused_by:
            self._transport.pause_reading()
        self.paused_by |= reason

    def resume_reading(self, reason: int) -> None:
        if self.paused_by & reason:
            self.paused_by &= ~reason
            if not self.paused_by and self._phase is not Phase.CLOSED:
                self._keepalive.heard = True  # what was sent meanwhile could not be heard
                if self._reader.unread:
                    self._context.loop.call_soon(self._read_on)
                else:
                    self._transport.resume_reading()

    def spend(self, frames: int, size: int) -> bool:
        now = self._context.loop.time()
        pause_s = self._side.spend(frames, size, now)
        if not pause_s:
            return True
        if self._phase is not Phase.OPEN:
            # Our close may not be read yet, and an abort could overtake it: read nothing more until
            # the close timeout.
            self.pause_reading(PAUSED_BY_BUDGET)
            return False
        if pause_s == math.inf:
            offence = PolicyViolation("flood", f"over {self._context.limits.side} beside messages")
            self.fail(offence.close_code, offence.reason, offence.error)
            return False
        self._context.observer.slowed()
        self.pause_reading(PAUSED_BY_BUDGET)
        self._side.read_at = now + pause_s
        self._arm()
        return True

    def touch(self) -> None:
        self._arm()

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        if self._phase is Phase.OPEN:
            self._keepalive.heard = True
        self._reader.read(data)

    def eof_received(self) -> bool:
        # The core is not told: it has nothing to answer. Nor is anything sent from here on: in a
        # cut, thousands wait for their end, and what is written to such a socket comes back as a
        # reset.
        self._phase = Phase.CLOSING
        self._reader.plain = False
        self._due_at = math.inf
        return peer_ended(self, self._transport, self._context.endings)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._phase = Phase.CLOSED
        self._reader.plain = False
        # Thousands of connections may be lost in one turn, and their sessions cost more to end.
        if self._handler is not None:
            self._context.endings.add(self)

    def hang_up(self) -> None:
        """It is the turn of this connection to end: its peer has ended, or it is lost."""
        transport = self._transport
        transport.close()
        if self._phase is not Phase.CLOSED and transport.get_write_buffer_size():
            # The peer may read on, but not for ever.
            self._due_at = self._context.loop.time() + self._context.limits.close_timeout_s
            self._arm()
        else:
            self._end()

    def _end(self) -> None:
        """The transport is gone, or about to go: end the session."""
        context, handler = self._context, self._handler
        if handler is None:
            return
        self._phase = Phase.CLOSED
        context.wheel.cancel(self)
        cause = self._cause or "lost"
        code = close_code(self._core, by_peer=cause == "device")
        # Cycles that only the collector would find: the core with its parser, and the handler and
        # the reader with this connection.
        if self._core is not None:
            release_core(self._core)
        self._handler = None
        self._reader.release()
        context.observer.closed(cause, context.loop.time() - self._keepalive.opened_at)
        handler.closed(cause, code)
        context.gate.left(self)

    def pause_writing(self) -> None:
        """The peer does not read: produce no more for it, and give it a while."""
        self.pause_reading(PAUSED_BY_SLOW_READER)
        self._due_at = self._context.loop.time() + self._context.limits.slow_reader_timeout_s
        self._arm()

    def resume_writing(self) -> None:
        self.resume_reading(PAUSED_BY_SLOW_READER)
        if self._phase is Phase.OPEN:
            self._keepalive.begin_again()
            self._due_at = self._context.loop.time() + self._context.limits.keepalive_interval_s
            self._arm()
            assert self._handler is not None
            self._handler.on_lull()

    # Deadlines

    def on_due(self, now: float) -> None:
        """A deadline passed: of the budget, the handler, the keepalive or the close."""
        handler = self._handler
        if now >= self._side.read_at:
            self._side.read_at = math.inf
            self.resume_reading(PAUSED_BY_BUDGET)
        if handler is not None and self._phase is Phase.OPEN and now >= handler.deadline:
            handler.deadline = math.inf
            handler.on_deadline(now)
        if now >= self._due_at:
            if self._phase is Phase.CLOSING:
                self.abort("close_timeout")
            elif self._phase is Phase.OPEN:
                self._keep_alive(now)
        self._arm()

    def _arm(self) -> None:
        due_at = min(self._due_at, self._side.read_at)
        if self._phase is Phase.OPEN and self._handler is not None:
            due_at = min(due_at, self._handler.deadline)
        if due_at < math.inf and self._phase is not Phase.CLOSED:
            self._context.wheel.schedule(self, due_at)

    def _keep_alive(self, now: float) -> None:
        limits, handler = self._context.limits, self._handler
        assert handler is not None
        if self.congested:
            self.abort("slow_reader")
            return
        step, wait_s = self._keepalive.step(
            interval_s=limits.keepalive_interval_s,
            timeout_s=limits.keepalive_timeout_s,
            readable=not self.paused_by,
        )
        if step is Step.HALF_OPEN:
            self.abort("half_open")
            return
        self._due_at = now + wait_s
        if step is Step.PING:
            handler.on_lull()
            if self._phase is Phase.OPEN:
                self._transport.write(EMPTY_PING)

    # What the reader asks and tells (`reader.Line`)

    @property
    def core(self) -> Core:
        core = self._core
        if core is None:
            core = self._core = make_core(self._context, ())
        return core

    def flush(self) -> None:
        if self._phase is Phase.CLOSED:
            return
        core, transport = self.core, self._transport
        for data in core.data_to_send():
            if data:
                transport.write(data)
            elif end_of_stream(transport, peer_may_send=core.close_rcvd is None):
                limits = self._context.limits
                self._due_at = min(self._due_at, self._context.loop.time() + limits.tls_linger_s)
                self._arm()

    def core_closing(self) -> None:
        core = self.core
        if core.parser_exc is None:
            self._cause = self._cause or "device"
        else:
            sent = core.close_sent
            code = sent.code if sent is not None else LOST
            self._cause = self._cause or FRAMING_CAUSES.get(code, "framing")
        if self._phase is Phase.OPEN:
            self._begin_closing()

    def _read_on(self) -> None:
        """Reading goes on, with what was kept."""
        if self.paused_by or self._phase is Phase.CLOSED:
            return
        self._reader.read_kept()
        if not self.paused_by:
            self._transport.resume_reading()

    def _begin_closing(self) -> None:
        self._phase = Phase.CLOSING
        self._reader.plain = False
        self._reader.unread = b""
        self._side.read_at = math.inf
        if self.paused_by:
            self.paused_by = 0
            self._transport.resume_reading()  # to see the peer's close
        self._due_at = self._context.loop.time() + self._context.limits.close_timeout_s
        self._arm()
