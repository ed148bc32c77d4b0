"""A device on a connection: feeds the session, carries out what it decides. Shell of `session`."""

import asyncio
import math
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Protocol

import structlog

from gateway.admission.credential import CredentialVerifier, Identity
from gateway.admission.errors import CredentialError
from gateway.admission.revocation import RevocationList
from gateway.edge.connection import (
    PAUSED_BY_DRAIN,
    PAUSED_BY_FULL_NODE,
    PAUSED_BY_RESUME,
    WebSocketConnection,
)
from gateway.edge.fleet import Fleet
from gateway.edge.observer import EdgeObserver
from gateway.edge.outlet import OpenOutlet, Outlet, ResumePoints
from gateway.edge.side_traffic import CREDENTIAL_FRAMES, HELLO_FRAMES
from gateway.session.credit import CreditPool
from gateway.session.errors import (
    CredentialExpired,
    InternalError,
    PolicyViolation,
    Revoked,
    SessionError,
    TakenOver,
    close_reason,
)
from gateway.session.fairness import FairShare, Share
from gateway.session.machine import SchemaProblem, Session, SessionLimits, State, Storable
from tidegate.wire import frames

_log = structlog.get_logger(__name__)

_UNSUPPORTED_DATA: Final = 1003
_REST: Final = 3.0
"""A greedy device rests so many times as long as storing its last messages took."""
_REST_MAX_S: Final = 1.0
_NOTICE_CHANGE: Final = 0.25
"""A change of first_retry_ms smaller than this share is not worth a frame to every device."""


def rfc3339_now() -> str:
    """The wall clock as RFC 3339 with microseconds."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{_date_time(seconds)}.{nanoseconds // 1000:06d}Z"


@lru_cache(maxsize=2)
def _date_time(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


CommandResult = Callable[[str, str, frames.Result], bool]
"""Takes the result of a command of (tenant, device); False if nobody waits for it."""


class SessionWatch(Protocol):
    """Who wants to know of sessions: the fleet's device registry."""

    def next_fence(self) -> int:
        """A number higher than that of any session before this one, on any node."""

    def established(self, key: tuple[str, str], fence: int) -> None:
        """A session said hello."""

    def ended(self, key: tuple[str, str], fence: int) -> None:
        """Its connection is gone."""


@dataclass(slots=True)
class DeviceContext:
    """What all devices of a node share. Times in seconds unless named otherwise."""

    limits: SessionLimits
    verifier: CredentialVerifier
    fleet: "Fleet[DeviceHandler]"
    open_outlet: OpenOutlet
    on_result: CommandResult
    observer: EdgeObserver
    rng: random.Random
    loop: asyncio.AbstractEventLoop
    hello_timeout_s: float
    credential_leeway_s: float
    keepalive_ms: int
    revocations: RevocationList
    watch: "SessionWatch"
    pool: CreditPool
    fairness: FairShare
    credit_greedy: int
    """Messages a greedy device may have outstanding."""
    backlog: Callable[[], float]
    """Share of the publish bounds in use."""
    held: Callable[[], str]
    """Why the stream stores nothing, or nothing."""
    resume_points: ResumePoints
    wall_clock: Callable[[], float] = time.time
    known_types: set[str] = field(default_factory=set)
    schema_problem: SchemaProblem | None = None
    """Judges each message, where there are schemas."""


class DeviceHandler:
    """The session of one device on one connection."""

    __slots__ = (
        "_announced",
        "_connection",
        "_context",
        "_expires_at",
        "_first_retry_ms",
        "_held",
        "_identity",
        "_leaving",
        "_outlet",
        "_parting",
        "_resting",
        "_resuming",
        "_sent_at",
        "_session",
        "_share",
        "deadline",
        "fence",
        "superseded",
    )

    def __init__(self, context: DeviceContext, identity: Identity) -> None:
        self._context = context
        self._identity = identity
        self._session = Session(context.limits, context.known_types, context.schema_problem)
        self._share = Share(context.fairness)
        self._resting: asyncio.TimerHandle | None = None
        self._sent_at = 0.0
        self._connection: WebSocketConnection | None = None
        self._outlet: Outlet | None = None
        self._expires_at = identity.expires_at
        self._first_retry_ms = 0
        self._leaving: frames.Goaway | None = None
        self._parting = False
        self._held = False
        self._resuming: asyncio.Task[None] | None = None
        self.deadline = math.inf
        self.fence = 0
        self._announced = False
        """Order among the sessions of this device, on all nodes; 0 before hello."""
        self.superseded = False

    @property
    def identity(self) -> Identity:
        return self._identity

    @property
    def key(self) -> tuple[str, str]:
        """Tenant and device."""
        return self._identity.tenant, self._identity.device

    @property
    def unsettled(self) -> int:
        """Messages received and not yet settled."""
        return self._session.unsettled

    @property
    def is_open(self) -> bool:
        return self._connection is not None and self._connection.is_open

    # Handler of the connection

    def opened(self, connection: WebSocketConnection) -> None:
        self._connection = connection
        self.deadline = self._context.loop.time() + self._context.hello_timeout_s

    def received_text(self, text: bytes) -> None:
        try:
            received = self._session.receive(text)
            if type(received) is list:
                self._store(received, len(text))
            else:
                self._act(received, len(text))  # type: ignore[arg-type]  # mypy cannot see it is no list
        except SessionError as offence:
            self.end(offence)

    def _act(self, received: frames.Hello | frames.Result | str, size: int) -> None:
        """On what is no message, and so is on the connection's budget, but for the first hello."""
        connection = self._connection
        assert connection is not None
        if isinstance(received, frames.Hello):
            if not self.fence or connection.spend(HELLO_FRAMES, size):
                self._answer_hello(received)
        elif isinstance(received, frames.Result):
            if connection.spend(1, size):
                known = self._context.on_result(*self.key, received)
                self._context.observer.commanded(
                    "unknown" if not known else "ok" if received.ok else "failed"
                )
        elif connection.spend(CREDENTIAL_FRAMES, size):
            self._renew(received)

    def received_binary(self, data: bytes) -> None:
        del data
        if self._connection is not None:
            reason = '{"error":"binary","detail":"frames are JSON text"}'
            self._connection.fail(_UNSUPPORTED_DATA, reason, "binary")

    def on_deadline(self, now: float) -> None:
        if self._leaving is not None:
            self._part()
        elif self._session.state is State.GREETING:
            self.end(PolicyViolation("hello", "no hello in time"))
        elif self._expires_at <= self._context.wall_clock():
            self.end(CredentialExpired("expired"))
        else:
            self._watch_expiry(now)

    def on_keepalive(self) -> None:
        first_retry_ms = self._context.fleet.first_retry_ms
        told = self._first_retry_ms
        if told and abs(first_retry_ms - told) > told * _NOTICE_CHANGE:
            self._first_retry_ms = first_retry_ms
            self._send("notice", frames.Notice(first_retry_ms))

    def closed(self, cause: str) -> None:
        del cause
        self._session.end()
        self._connection = None
        if self._resuming is not None:
            self._resuming.cancel()
        if self._resting is not None:
            self._resting.cancel()
        if self._announced:
            self._context.watch.ended(self.key, self.fence)
        if not self._session.unsettled:
            self._leave()
        # Else the entry stays until the last message is settled: a session that returns before
        # that must find it, to mark what is still queued as its own to resend.

    # Owner of messages in the lanes

    def stored(self, seq: int) -> None:
        session = self._session
        session.settle(seq, self._ceiling())
        if self._connection is None:
            if not session.unsettled:
                self._leave()
            return
        if self._share.greedy and not self._parting:
            self._rest()
        else:
            self._acknowledge()

    def _leave(self) -> None:
        self._context.fleet.remove(self)
        self._outlet = None  # it holds us

    def _rest(self) -> None:
        """Acknowledge later, for a greedy device: most of the lanes' time belongs to the others."""
        if self._resting is None:
            storing_s = time.perf_counter() - self._sent_at
            rest_s = min(_REST_MAX_S, _REST * storing_s)
            self._resting = self._context.loop.call_later(rest_s, self._acknowledge)

    def _acknowledge(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        if self._connection is None:
            return
        ack = self._session.take_ack()
        if ack is not None:
            self._connection.send_text(ack)
            self._context.observer.acknowledged()
        if self._parting and not self._session.unsettled:
            self._go_away()

    def hold(self, reason: str) -> None:
        """Credit is zero until `release`; the device stays connected."""
        self._held = True
        self._session.hold()
        if self._session.state is State.ESTABLISHED:
            self._send("hold", frames.Hold(reason))

    def release(self) -> None:
        """Credit comes back, from a small window on."""
        if not self._held:
            return
        self._held = False
        if self._session.state is State.ESTABLISHED and self._connection is not None:
            self._connection.send_text(self._session.release(self._ceiling()))

    def _ceiling(self) -> int:
        context = self._context
        ceiling = context.pool.ceiling(len(context.fleet), context.backlog())
        return min(ceiling, context.credit_greedy) if self._share.greedy else ceiling

    def rejected(self, seq: int, error: str, detail: str) -> None:
        self._send("reject", frames.Reject(seq, error, detail))

    # What the node does with a device

    def end(self, offence: SessionError) -> None:
        """Close with the offence's code and reason."""
        if self._connection is not None:
            self._connection.fail(offence.close_code, offence.reason, offence.error)

    def command(self, command: frames.Command) -> bool:
        """Send a command; False if the session is not established, or its device does not read."""
        if not self.is_open or self._session.state is not State.ESTABLISHED:
            return False
        assert self._connection is not None
        if self._connection.congested:
            self._context.observer.commanded("congested")
            return False
        self._send("command", command)
        self._context.observer.commanded("sent")
        return True

    def leave(self, reason: str, retry_ms: int, ticket: str, linger_s: float) -> None:
        """Send the device elsewhere.

        Args:
            reason: why.
            retry_ms: when to connect there.
            ticket: for a slot then.
            linger_s: how long after that moment the session lives on, so that the device can make
                its new connection before this one breaks; negative to part at once.
        """
        if self._connection is None or not self.is_open or self._leaving is not None:
            return
        self._leaving = frames.Goaway(reason, retry_ms, ticket)
        if linger_s < 0:
            self._part()
            return
        self._send("goaway", self._leaving)
        self.deadline = self._context.loop.time() + retry_ms / 1000 + linger_s
        self._connection.touch()

    def _part(self) -> None:
        """Read no more; once what was read is settled, close."""
        if self._connection is None or not self.is_open:
            return
        self._parting = True
        if self._session.unsettled:
            assert self._leaving is not None
            self._send("hold", frames.Hold(self._leaving.reason))
            self._connection.pause_reading(PAUSED_BY_DRAIN)
        else:
            self._go_away()

    def _go_away(self) -> None:
        assert self._leaving is not None
        if self._connection is not None:
            reason = self._leaving.reason
            self._send("goaway", self._leaving)
            self._connection.close(frames.CLOSE_GOING_AWAY, close_reason(reason), reason)

    def _send(self, name: str, body: object) -> None:
        if self._connection is not None:
            self._connection.send_text(frames.encode_named(name, body))  # type: ignore[arg-type]  # Structs

    def _answer_hello(self, hello: frames.Hello) -> None:
        """Open the outlet of an outbox; say where it stands, which may have to be looked up."""
        context, connection = self._context, self._connection
        assert connection is not None
        if not self.fence:
            self.fence = context.watch.next_fence()  # who says hello later is the newer session
        tenant, device = self.key
        self._outlet = context.open_outlet(tenant, device, hello.outbox, self)
        settled = context.resume_points.known(tenant, device, hello)
        if settled is not None:
            self._begin(hello, settled)
            return
        connection.pause_reading(PAUSED_BY_RESUME)
        if self._session.state is State.RESUMING:
            self.deadline = math.inf  # it said hello in time; its expiry is watched from welcome on
        self._resuming = context.loop.create_task(self._look_up(hello), name="resume")
        self._resuming.add_done_callback(self._looked_up)

    def _check_standing(self) -> None:
        """A look-up takes a moment, in which the device may have been revoked or have come again.

        Raises:
            Revoked: it may not be here any more.
            TakenOver: a newer connection of it has its welcome already.
        """
        context = self._context
        if context.revocations.revoked(self._identity):
            raise Revoked
        newer = context.fleet.find(*self.key)
        if newer is not None and newer.fence > self.fence:
            self.superseded = True
            raise TakenOver

    def _announce(self) -> None:
        """This is the device's session from now on, here and on all nodes.

        Not before its welcome: until then the session that it takes over serves the device, which
        a node that drains promises (make before break). What that one still stores meanwhile is
        stored after the look-up, so JetStream knows it as a duplicate.
        """
        context = self._context
        self._announced = True
        older = context.fleet.add(self)
        if older is not None:
            older.superseded = True
            older.end(TakenOver())
        context.watch.established(self.key, self.fence)

    async def _look_up(self, hello: frames.Hello) -> None:
        settled = await self._context.resume_points.look_up(*self.key, hello)
        if self._connection is not None:
            self._connection.resume_reading(PAUSED_BY_RESUME)
            self._begin(hello, settled)

    def _looked_up(self, resuming: asyncio.Task[None]) -> None:
        """A look-up that failed must not leave the device waiting for its answer."""
        if not resuming.cancelled() and (failure := resuming.exception()) is not None:
            _log.error("look_up_failed", exc_info=failure)
            self.end(InternalError("where the outbox stands could not be looked up"))

    def _begin(self, hello: frames.Hello, settled: int) -> None:
        """Go on after `settled`, and tell the device."""
        context, session = self._context, self._session
        if not self.is_open:
            return
        assert self._connection is not None
        first = session.state is State.RESUMING
        if first:
            try:
                self._check_standing()
            except SessionError as offence:
                self.end(offence)
                return
        session.begin(settled, self._ceiling())
        self._held = False
        if first:
            self._send("welcome", self._welcome(hello.outbox))
            self._announce()
        else:
            resume = frames.encode_resume(hello.outbox, session.acked, session.credit)
            self._connection.send_text(resume)
        reason = context.held()
        if reason:
            self.hold(reason)
        if first:
            self._watch_expiry(context.loop.time())

    def _welcome(self, outbox: str) -> frames.Welcome:
        context, limits = self._context, self._context.limits
        self._first_retry_ms = context.fleet.first_retry_ms
        return frames.Welcome(
            session=secrets.token_hex(8),
            credit=self._session.credit,
            max_message_bytes=limits.message_bytes_max,
            resume=frames.Resume(outbox, self._session.acked),
            first_retry_ms=self._first_retry_ms,
            keepalive_ms=context.keepalive_ms,
            max_frame_bytes=limits.frame_bytes_max,
            max_messages_per_frame=limits.messages_per_frame_max,
            max_depth=limits.json_depth_max,
            features=frames.FEATURES,
        )

    def _watch_expiry(self, now: float) -> None:
        """Look again when the credential expires, or in a day: the wall clock may be set."""
        wait_s = min(max(self._expires_at - self._context.wall_clock(), 0.0), 86_400.0)
        # Within the leeway at random: credentials issued together must not end together.
        self.deadline = (
            now + wait_s + self._context.rng.uniform(0, self._context.credential_leeway_s)
        )
        if self._connection is not None:
            self._connection.touch()

    def _renew(self, token: str) -> None:
        try:
            identity = self._context.verifier.verify(token)
        except CredentialError as exc:
            raise CredentialExpired(str(exc)) from None
        if (identity.tenant, identity.device) != self.key:
            raise PolicyViolation("credential", "the credential is for another device")
        if self._context.revocations.revoked(identity):
            raise Revoked
        self._identity = identity
        self._expires_at = identity.expires_at
        if self._leaving is None:
            self._watch_expiry(self._context.loop.time())

    def _store(self, messages: list[Storable], size: int) -> None:
        outlet = self._outlet
        assert outlet is not None
        outlet.store(messages, rfc3339_now())
        self._context.observer.received(len(messages), size)
        self._context.pool.received(len(messages), size)
        self._share.sent(len(messages), size)
        self._sent_at = time.perf_counter()
        if outlet.full and self._connection is not None:
            self._connection.pause_reading(PAUSED_BY_FULL_NODE)
            outlet.when_drained(self._resume)

    def _resume(self) -> None:
        if self._connection is not None:
            self._connection.resume_reading(PAUSED_BY_FULL_NODE)
