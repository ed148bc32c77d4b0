"""One session on one connection, from its hello to its end: one outbox id after the other."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from msgspec import UNSET

from tidegate.addresses import UrlRing
from tidegate.backoff import ReconnectPolicy
from tidegate.board import Board
from tidegate.clock import Clock
from tidegate.connection import Connection
from tidegate.desired import Desired
from tidegate.errors import AttemptEnded, DeviceError
from tidegate.exchange import Callbacks
from tidegate.handlers import Handlers
from tidegate.mailbox import Mailbox
from tidegate.outbox import Run
from tidegate.outbox_thread import OutboxThread
from tidegate.session import ClientSession, GatewayLimits
from tidegate.status import Status
from tidegate.tracing import traced
from tidegate.wallet import Wallet
from tidegate.wire import frames

_log = logging.getLogger("tidegate.device")

_HELLO_TIMEOUT_S: Final = 90.0
"""How long a hello may wait for its answer. The gateway may have to look up what the stream holds,
which can take as long as the stream needs to elect a leader. Pings show that the gateway is
alive."""

_CANCEL_TIMEOUT_S: Final = 3.0
"""How long a task may take to end: it may run the application's credential provider."""


class SentAway(AttemptEnded):
    """The gateway named another slot. This connection stays open until the next one is
    established.
    """


class MovedOn(AttemptEnded):
    """The next messages need another hello, and with this gateway that takes a new connection."""


@dataclass(slots=True)
class Gear:
    """What all sessions of a device share."""

    clock: Clock
    store: OutboxThread
    board: Board
    wallet: Wallet
    policy: ReconnectPolicy
    urls: UrlRing
    mailbox: Mailbox
    desired: Desired
    callbacks: Callbacks
    handlers: Handlers
    status: Status
    limits: GatewayLimits
    """Those of the last gateway."""


class SessionRunner:
    """Serves one session."""

    def __init__(self, connection: Connection, gear: Gear, run: Run) -> None:
        """
        Args:
            connection: an open one; the runner closes it.
            gear: what all sessions of the device share.
            run: what the first hello announces.
        """
        self.connection = connection
        self.welcomed = False
        """Whether the gateway has answered the hello."""
        self.extended = gear.store.outbox.gateway_has_features
        """Whether the hello says more than the first gateways understand."""
        self._gear = gear
        self._run = run
        sent = run.sent if self.extended else None
        self._session = ClientSession(run.id, run.oldest, run.age_ms, sent, gear.desired.version)
        self._given = run.last
        """The highest seq that was ever assigned under the id of `_run`, as far as is known
        here."""
        self._receiving: asyncio.Task[None] | None = None
        self._away = asyncio.Event()
        self._passed = False
        """Whether this session can send no further message of the outbox id in order."""

    @classmethod
    async def begin(cls, connection: Connection, gear: Gear) -> "SessionRunner":
        """A runner for the messages that come first in the outbox.

        Raises:
            OutboxError: the disk refused; the connection is closed.
        """
        try:
            run = await gear.store.begin()
        except BaseException:  # failed or cancelled, the connection has no other owner yet
            await _hang_up(connection)
            raise
        return cls(connection, gear, run)

    async def run(self, on_welcome: Callable[[], Any]) -> None:
        """Serve the session until it ends.

        Raises:
            SentAway: the gateway sends the device elsewhere. The connection is still open, and
                acknowledgements are received: `retire` it.
            MovedOn: the device itself needs another connection.
            Closed, ProtocolViolation, TimeoutError: the session ended.
            OutboxError: the disk refused.
            DeviceError: a fault of the application.
        """
        tasks: list[asyncio.Task[None]] = []
        sent_away = False
        try:
            await self._greet()
            self.welcomed = True
            await on_welcome()
            self._receiving = asyncio.create_task(self._receive(), name="tidegate-receive")
            tasks = [
                self._receiving,
                asyncio.create_task(self._send(), name="tidegate-send"),
                asyncio.create_task(self._renew(), name="tidegate-renew"),
                asyncio.create_task(self._until_sent_away(), name="tidegate-away"),
            ]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            failures = [exc for task in tasks if task.done() and (exc := task.exception())]
            sent_away = all(isinstance(exc, SentAway) for exc in failures)
            raise _worst(failures)
        finally:
            await self._cancel(
                [task for task in tasks if not sent_away or task is not self._receiving]
            )
            if not sent_away:
                await _hang_up(self.connection)

    @property
    def lingering(self) -> asyncio.Task[None] | None:
        """The task that still receives acknowledgements after `SentAway`."""
        return self._receiving

    async def retire(self) -> None:
        """End a session that was sent away."""
        if self._receiving is not None:
            await self._cancel([self._receiving])
        await _hang_up(self.connection)

    async def _cancel(self, tasks: list[asyncio.Task[None]]) -> None:
        """End tasks and log how they ended. A task that does not end in time is left behind."""
        for task in tasks:
            task.cancel()
        for task in await self._gear.clock.ended(tasks, _CANCEL_TIMEOUT_S):
            _log.error("%s does not end", task.get_name())
        for task in tasks:
            if task.done() and not task.cancelled() and (exc := task.exception()) is not None:
                _log.debug("%s ended with %s", task.get_name(), type(exc).__name__)

    async def _greet(self) -> None:
        await self.connection.send(self._session.hello())
        async with self._gear.clock.limit(_HELLO_TIMEOUT_S):
            text = await self.connection.receive()
        self._hear(text)
        welcome = self._session.welcome
        assert welcome is not None  # otherwise `receive` has raised
        self._gear.limits = self._session.limits
        self._gear.wallet.believed()
        self._gear.mailbox.on_welcome(self._session.settles_results)
        await self._gear.store.remember_features(bool(welcome.features))

    # Receiving

    async def _receive(self) -> None:
        while True:
            self._hear(await self.connection.receive())

    def _hear(self, text: bytes) -> None:
        gear, session = self._gear, self._session
        acked = session.acked
        frame = session.receive(text)
        if session.acked > acked:
            self._on_acked(session.acked)
        if frame.welcome is not UNSET:
            self._on_welcome(frame.welcome)
        if frame.notice is not UNSET:
            gear.policy.told_first_retry(frame.notice.first_retry_ms)
        if frame.reject is not UNSET:
            reject = frame.reject
            number = self._run.number(reject.seq)
            gear.callbacks.rejected(frames.Reject(number, reject.error, reject.detail))
        if frame.goaway is not UNSET:
            self._on_goaway(frame.goaway)
        if frame.command is not UNSET:
            gear.mailbox.take_command(frame.command)
        if frame.settled is not UNSET:
            gear.mailbox.settled(frame.settled)
        if frame.state is not UNSET:
            gear.desired.hear(frame.state)
        gear.board.changed()

    def _on_welcome(self, welcome: frames.Welcome) -> None:
        self._gear.policy.told_first_retry(welcome.first_retry_ms)
        if welcome.state is not UNSET:
            self._gear.desired.hear(welcome.state)

    def _on_goaway(self, goaway: frames.Goaway) -> None:
        self._gear.policy.sent_away(goaway.retry_ms, goaway.ticket or None)
        if not self._away.is_set():
            self._gear.urls.leave()
        self._away.set()

    def _on_acked(self, seq: int) -> None:
        """Everything up to `seq` is settled. A seq beyond those assigned settles all of the id."""
        gear, run = self._gear, self._run
        gear.store.settle(run.id, seq)
        if seq > self._given:
            self._passed = True
        gear.callbacks.acked(run.number(min(seq, self._given)))

    # Sending

    async def _send(self) -> None:
        board = self._gear.board
        if self._session.was_too_brief and self._session.can_change:
            # The first hello was plain, because it was not known what this gateway understands.
            await self._greet_again(await self._gear.store.begin())
        while True:
            version = board.version
            for frame in self._gear.mailbox.take_frames():
                await self.connection.send(frame)
            if not (await self._send_messages() or await self._change_outbox()):
                await board.changed_since(version)

    async def _send_messages(self) -> bool:
        """Send the messages that may be sent now. Returns whether to try again at once."""
        session, run, store = self._session, self._run, self._gear.store
        window = session.window
        nothing_new = run.number(session.sent) >= store.outbox.next_number - 1
        if not window or self._passed or nothing_new or not store.outbox.messages:
            return False
        limits = session.limits
        batch = await store.read(
            run.id,
            session.sent,
            messages_max=min(window, limits.messages_per_frame),
            bytes_max=limits.frame_bytes,
            fits=lambda message: limits.objection(message) is None,
        )
        if len(batch) > session.window:
            return True  # a hold arrived while the outbox was read
        objection = limits.objection(batch[0]) if batch else None
        if objection is not None:
            await self._give_up(objection)
            return True
        if not batch or batch[0].seq != session.sent + 1:
            self._passed = True  # the id is empty, or has a hole that only a hello can pass
            return True
        traces = self._gear.callbacks.traces
        if traces is not None and session.takes_traces:
            batch = traced(batch, lambda seq: traces.trace_of(run.number(seq)), limits.frame_bytes)
        frame = session.messages(batch)
        self._given = max(self._given, session.sent)
        await self.connection.send(frame)
        return True

    async def _give_up(self, objection: frames.Reject) -> None:
        """Remove a message that this gateway can never take, so that the others can be sent."""
        gear = self._gear
        number = self._run.number(objection.seq)
        await gear.store.remove(number)
        gear.board.changed()  # `flush` does not wait for it any more
        gear.status.rejected += 1
        _log.warning("message %d can never be sent: %s", number, objection.detail)
        gear.callbacks.rejected(frames.Reject(number, objection.error, objection.detail))

    async def _change_outbox(self) -> bool:
        """Continue with the next id, or behind a hole, once all sent messages are acknowledged."""
        session, store = self._session, self._gear.store
        if not self._passed or not session.is_settled or not store.outbox.messages:
            return False
        run = await store.begin()
        if run.id == self._run.id and run.oldest == session.sent + 1:
            self._passed = False
            return store.outbox.next_number - 1 > run.number(session.sent)
        if not session.can_change:
            raise MovedOn
        await self._greet_again(run)
        return True

    async def _greet_again(self, run: Run) -> None:
        """Continue with `run`: a further hello and its answer."""
        gear, session = self._gear, self._session
        self._run, self._given, self._passed = run, run.last, False
        hello = session.change(run.id, run.oldest, run.age_ms, run.sent, gear.desired.version)
        await self.connection.send(hello)
        async with gear.clock.limit(_HELLO_TIMEOUT_S):
            while session.changing:
                await gear.board.changed_since(gear.board.version)

    async def _renew(self) -> None:
        """Present a fresh credential on the open connection before the old one expires."""
        while True:
            fresh = await self._gear.wallet.renewed()
            await self.connection.send(frames.encode_credential(fresh))

    async def _until_sent_away(self) -> None:
        await self._away.wait()
        raise SentAway


def _worst(failures: list[BaseException]) -> BaseException:
    """Which of the failures ended the session: the application's comes before the connection's."""
    for kind in (DeviceError, Exception):
        for failure in failures:
            if isinstance(failure, kind) and not isinstance(failure, SentAway):
                return failure
    return failures[0]


async def _hang_up(connection: Connection) -> None:
    try:
        await connection.close()
    except asyncio.CancelledError:
        connection.abort()
        raise
