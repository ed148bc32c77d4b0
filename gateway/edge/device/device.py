"""A device on a connection: the shell of `session.machine`.

It gives the session its inputs (text, settlements, deadlines, orders of the node) and carries out
the outputs as frames, timers and closes.
"""

import asyncio
import math
import time
from functools import partial
from typing import Any, Final

from gateway.admission.credential import Identity
from gateway.edge.connection.side_traffic import CREDENTIAL_FRAMES, HELLO_FRAMES
from gateway.edge.device.context import DeviceContext
from gateway.edge.device.credentials import expiry_look_s, renewed
from gateway.edge.device.description import describe
from gateway.edge.device.exchange import Exchange
from gateway.edge.device.outlet import Outlet
from gateway.edge.device.resuming import ask
from gateway.edge.device.state_talk import StateTalk
from gateway.edge.device.succession import may_speak, take_over
from gateway.edge.device.wall_time import rfc3339_now
from gateway.edge.ports import PAUSED_BY_DRAIN, PAUSED_BY_FULL_NODE, PAUSED_BY_RESUME, Connection
from gateway.session import outputs as out
from gateway.session.errors import SessionError, UnsupportedData, close_reason
from gateway.session.fairness import Share
from gateway.session.intake import Storable
from gateway.session.machine import ACKNOWLEDGE, PARTING, Session
from gateway.session.presence import cause_of
from gateway.session.regions import Departure, Settled, State
from tidegate.wire import frames

_REST: Final = 3.0
"""A greedy device rests this many times as long as storing its last messages took."""
_REST_MAX_S: Final = 1.0


class DeviceHandler:
    """The session of one device on one connection."""

    __slots__ = (
        "_connection",
        "_context",
        "_exchange",
        "_identity",
        "_outlet",
        "_resting",
        "_resuming",
        "_sent_at",
        "_session",
        "_share",
        "deadline",
        "fence",
    )

    def __init__(self, context: DeviceContext, identity: Identity) -> None:
        self._context = context
        self._identity = identity
        self._session = Session(context.limits, context.known_types, context.schema_problem)
        self._share = Share(context.fairness)
        self._connection: Connection | None = None
        self._outlet: Outlet | None = None
        self._resting: asyncio.TimerHandle | None = None
        self._resuming: asyncio.Task[None] | None = None
        self._sent_at = 0.0
        self._exchange: Exchange | None = None
        self.deadline = math.inf
        self.fence = 0
        """Order among the sessions of this device, on all nodes; 0 before hello."""

    @property
    def identity(self) -> Identity:
        return self._identity

    @property
    def key(self) -> tuple[str, str]:
        """Tenant and device."""
        return self._identity.key

    @property
    def session_id(self) -> str:
        """Names this session; empty before its welcome."""
        return self._session.id

    @property
    def state_talk(self) -> StateTalk | None:
        """Of a session which asked for the state of its device."""
        return self._exchange.state if self._exchange is not None else None

    @property
    def seat(self) -> Exchange | None:
        """What queued commands are given to; None before the welcome and after the end."""
        exchange = self._exchange
        return exchange if exchange is not None and exchange.fence else None

    @property
    def superseded(self) -> bool:
        """Whether a newer session of the device sends again what is unacknowledged here."""
        return self._session.superseded

    # Handler of the connection

    def opened(self, connection: Connection) -> None:
        self._connection = connection
        self._exchange = Exchange(self._context, self.key, self._session, connection)
        self._context.memory.arrivals.opened(self)
        self.deadline = self._context.loop.time() + self._context.hello_timeout_s

    def received_text(self, text: bytes) -> None:
        try:
            received = self._session.receive(text)
            if isinstance(received, list):
                self._store(received, len(text))
            else:
                self._act(received, len(text))
        except SessionError as offence:
            self.end(offence)

    def received_binary(self, data: bytes) -> None:
        del data
        self.end(UnsupportedData("binary", "frames are JSON text"))

    def on_deadline(self, now: float) -> None:
        del now
        expired = self._identity.expires_at <= self._context.wall_clock()
        self._carry_out(self._session.deadline_passed(expired=expired))

    def on_lull(self) -> None:
        if self._exchange is not None:
            self._exchange.notice()

    def closed(self, cause: str, code: int) -> None:
        context, identity = self._context, self._identity
        context.memory.closed(identity.holder, (context.loop.time(), cause, "", 0.0))
        established = self._session.state in (State.ESTABLISHED, State.CHANGING)
        outputs = self._session.closed()
        welcomed = 0
        if self._exchange is not None:
            welcomed = self._exchange.fence
            self._exchange.close()
        self._connection = self._exchange = None
        context.memory.arrivals.over(self)
        if self._resuming is not None:
            self._resuming.cancel()
        if self._resting is not None:
            self._resting.cancel()
        if established:
            why = cause_of(cause, code, drained=self._session.drained)
            context.watch.ended(self.key, welcomed, why)
        self._carry_out(outputs)

    # Owner of messages in the lanes

    def stored(self, seq: int) -> None:
        greedy = self._share.greedy
        settled = self._session.settle(seq, self._context.ceiling(greedy=greedy), greedy=greedy)
        if settled is ACKNOWLEDGE:
            self._acknowledge()
        elif settled is Settled.REST:
            storing_s = time.perf_counter() - self._sent_at
            rest_s = min(_REST_MAX_S, _REST * storing_s)
            self._resting = self._context.loop.call_later(rest_s, self._acknowledge)
        elif settled is Settled.FORGET:
            self._forget()

    def rejected(self, seq: int, error: str, detail: str) -> None:
        if self._connection is not None:
            reject = frames.Reject(seq, error, detail)
            self._connection.send_text(frames.encode_named("reject", reject))

    def describe(self) -> dict[str, Any]:
        return describe(self.fence, self._session, self._share, self._sent_at, self._exchange)

    # What the node does with a device

    def end(self, offence: SessionError) -> None:
        """Close with the offence's code and reason."""
        connection = self._connection
        if connection is not None and connection.is_open:  # else nobody would read the reason
            connection.fail(offence.close_code, offence.reason, offence.error)

    def supersede(self) -> None:
        """A newer session of this device has taken over, on this node or another."""
        self._carry_out(self._session.supersede())

    def command(self, command: frames.Command) -> bool:
        """Send a command; False if the session is not established, or its device does not read."""
        return self._exchange is not None and self._exchange.command(command)

    def leave(self, reason: str, retry_ms: int, ticket: str, linger_s: float) -> None:
        """Send the device to another node.

        Args:
            reason: why.
            retry_ms: when to connect there.
            ticket: for a slot then.
            linger_s: how long after that moment the session lives on, so that the device can make
                its new connection before this one breaks; negative to part at once.
        """
        if self._connection is not None and self._connection.is_open:
            goaway = frames.Goaway(reason, retry_ms, ticket)
            self._carry_out(self._session.leave(goaway, linger_s))

    def hold(self, reason: str) -> None:
        """Credit is zero until `release`; the device stays connected."""
        self._carry_out(self._session.hold(reason))

    def release(self) -> None:
        """Credit comes back, from a small window on."""
        self._carry_out(self._session.release(self._context.ceiling(greedy=self._share.greedy)))

    # Outputs

    def _carry_out(self, outputs: out.Outputs) -> None:
        connection = self._connection
        for output in outputs:
            if isinstance(output, out.Forget):
                self._forget()
            elif connection is not None:
                self._do(output, connection)

    def _do(self, output: out.Output, connection: Connection) -> None:
        match output:
            case out.Send(frame):
                connection.send_text(frame)
            case out.Fail(offence):
                self.end(offence)
            case out.StopReading():
                connection.pause_reading(PAUSED_BY_DRAIN)
            case out.Close(reason):
                connection.close(frames.CLOSE_SERVICE_RESTART, close_reason(reason), reason)
            case out.Wake(after_s):
                self.deadline = self._context.loop.time() + after_s
                connection.touch()
            case out.WatchExpiry():
                self._watch_expiry()

    def _forget(self) -> None:
        self._context.fleet.remove(self)
        self._outlet = None  # it refers to this handler: a cycle that only the collector would find

    def _acknowledge(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        session, connection, exchange = self._session, self._connection, self._exchange
        if connection is None or exchange is None:
            return
        ack = session.take_ack()
        if ack is not None:
            connection.send_text(ack)
            exchange.acked_at = time.perf_counter()
            self._context.observer.acknowledged()
        if session.departure is PARTING:
            self._carry_out(session.parted())

    # Messages, and what comes beside them

    def _store(self, messages: list[Storable], size: int) -> None:
        outlet, context = self._outlet, self._context
        assert outlet is not None
        outlet.store(messages, rfc3339_now())
        context.observer.received(len(messages), size)
        context.pool.received(len(messages), size)
        self._share.sent(len(messages), size)
        self._sent_at = time.perf_counter()
        if outlet.full and self._connection is not None:
            self._connection.pause_reading(PAUSED_BY_FULL_NODE)
            outlet.when_drained(self._read_on)

    def _read_on(self) -> None:
        if self._connection is not None:
            self._connection.resume_reading(PAUSED_BY_FULL_NODE)

    def _act(
        self, received: frames.Hello | frames.Result | frames.Received | str, size: int
    ) -> None:
        """Act on what is no message. All of it is on the connection's budget, except the first
        hello.
        """
        connection, exchange = self._connection, self._exchange
        assert connection is not None
        assert exchange is not None
        if isinstance(received, frames.Hello):
            if not self.fence or connection.spend(HELLO_FRAMES, size):
                self._answer_hello(received, connection)
        elif not isinstance(received, str):
            if connection.spend(1, size):
                exchange.answered(received)
        elif connection.spend(CREDENTIAL_FRAMES, size):
            self._identity = renewed(self._context, self._identity, received)
            if self._session.departure is Departure.STAYING:
                self._watch_expiry()

    def _watch_expiry(self) -> None:
        context = self._context
        self.deadline = context.loop.time() + expiry_look_s(context, self._identity)
        if self._connection is not None:
            self._connection.touch()

    # Hello

    def _answer_hello(self, hello: frames.Hello, connection: Connection) -> None:
        """Open the outlet of an outbox, and look up where that outbox stands if it is not known."""
        context = self._context
        if not self.fence and self._exchange is not None:
            self._exchange.greet(hello)
            self.fence = context.watch.next_fence()  # the session that says hello later is newer
        tenant, device = self.key
        self._outlet = context.open_outlet(tenant, device, hello.outbox, self)
        settled = context.resume_points.known(tenant, device, hello)
        if settled is not None:
            self._begin(hello, settled)
            return
        connection.pause_reading(PAUSED_BY_RESUME)
        if self._session.state is State.RESUMING:
            self.deadline = math.inf  # it said hello in time; expiry is watched from welcome on
        self._resuming = ask(context, self.key, hello, self._looked_up, self.end)

    def _looked_up(self, hello: frames.Hello, settled: int) -> None:
        self._resuming = None  # one at a time; a task that has ended keeps its frame
        if self._connection is not None:
            self._connection.resume_reading(PAUSED_BY_RESUME)
            self._begin(hello, settled)

    def _begin(self, hello: frames.Hello, settled: int) -> None:
        """Go on after `settled`, and tell the device."""
        context, session, connection = self._context, self._session, self._connection
        exchange = self._exchange
        if connection is None or exchange is None or not connection.is_open:
            return
        if session.state is State.RESUMING and exchange.waits(partial(self._begin, hello, settled)):
            self.deadline = math.inf
            return
        ceiling = context.ceiling(greedy=self._share.greedy)
        if session.state is State.CHANGING:
            session.begin(settled, ceiling)
            resume = frames.encode_resume(hello.outbox, session.acked, session.credit)
            connection.send_text(resume)
            exchange.further(hello)
        elif may_speak(context, self):
            session.begin(settled, ceiling)
            exchange.welcome(hello, self.fence)
            take_over(context, self)
            self._watch_expiry()
        else:
            return
        if reason := context.held():
            self.hold(reason)
