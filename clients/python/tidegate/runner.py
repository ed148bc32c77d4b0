"""One session on one connection: from hello to its end, through one outbox id after the other."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from msgspec import UNSET
from websockets.asyncio.client import ClientConnection

from tidegate.addresses import UrlRing
from tidegate.backoff import ReconnectPolicy
from tidegate.board import Board
from tidegate.errors import DeviceError
from tidegate.exchange import Callbacks, Mailbox
from tidegate.outbox import Run
from tidegate.outbox_thread import OutboxThread
from tidegate.session import ClientSession, GatewayLimits
from tidegate.status import Status
from tidegate.wallet import Wallet
from tidegate.wire import frames

_log = logging.getLogger("tidegate.device")

_HELLO_TIMEOUT_S: Final = 90.0
"""How long a hello may wait for its answer. The gateway may have to look up where the stream
stands, which takes as long as the stream needs for a new leader; pings tell that it lives."""

_CANCEL_TIMEOUT_S: Final = 3.0
"""How long a task may take to end: its provider is an application's code."""


class SentAway(Exception):
    """The gateway named another slot; this connection lives on until the next one stands."""


class MovedOn(Exception):
    """What comes next needs a hello of its own, and here that takes a new connection."""


@dataclass(slots=True)
class Gear:
    """What all sessions of a device share."""

    store: OutboxThread
    board: Board
    wallet: Wallet
    policy: ReconnectPolicy
    urls: UrlRing
    mailbox: Mailbox
    callbacks: Callbacks
    status: Status
    limits: GatewayLimits
    """Those of the last gateway."""


class SessionRunner:
    """Serves one session."""

    def __init__(self, connection: ClientConnection, gear: Gear) -> None:
        self.connection = connection
        self.welcomed = False
        """Whether the gateway took the session up."""
        self.extended = False
        """Whether its hello said more than the first gateways understand."""
        self._gear = gear
        self._session: ClientSession
        self._run: Run
        self._given = 0
        """The highest seq that was ever given under the id of `_run`, as far as is known here."""
        self._receiving: asyncio.Task[None] | None = None
        self._away = asyncio.Event()
        self._passed = False
        """Whether the outbox id has nothing more that this session could send in order."""

    async def run(self, on_welcome: Callable[[], Any]) -> None:
        """Serve the session until it ends.

        Raises:
            SentAway: the gateway sends the device elsewhere. The connection is still open and
                acknowledgements are heard: `retire` it.
            MovedOn: the device itself is done with this connection.
            ConnectionClosed, ProtocolViolation, TimeoutError: the session ended.
            OutboxError: the disk refused.
            DeviceError: the application's fault.
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
            await _cancel([task for task in tasks if not sent_away or task is not self._receiving])
            if not sent_away:
                await self._hang_up()

    @property
    def lingering(self) -> asyncio.Task[None] | None:
        """What still hears acknowledgements after `SentAway`."""
        return self._receiving

    async def retire(self) -> None:
        """End a session that was sent away."""
        if self._receiving is not None:
            await _cancel([self._receiving])
        await self._hang_up()

    async def _hang_up(self) -> None:
        try:
            await self.connection.close()
        except asyncio.CancelledError:
            self.connection.transport.abort()
            raise

    async def _greet(self) -> None:
        store = self._gear.store
        self._run = run = await store.begin()
        self._given = run.last
        self.extended = store.outbox.gateway_has_features
        sent = run.sent if self.extended else None
        self._session = ClientSession(run.id, run.oldest, run.age_ms, sent)
        await self.connection.send(self._session.hello(), text=True)
        async with asyncio.timeout(_HELLO_TIMEOUT_S):
            text = await self.connection.recv(decode=False)
        self._hear(text)
        welcome = self._session.welcome
        assert welcome is not None  # or `receive` had objected
        self._gear.limits = self._session.limits
        self._gear.wallet.believed()
        await store.remember_features(bool(welcome.features))

    # Hearing

    async def _receive(self) -> None:
        while True:
            self._hear(await self.connection.recv(decode=False))

    def _hear(self, text: bytes | str) -> None:
        gear, session = self._gear, self._session
        acked = session.acked
        frame = session.receive(text.encode() if isinstance(text, str) else text)
        if session.acked > acked:
            self._on_acked(session.acked)
        if frame.welcome is not UNSET:
            gear.policy.told_first_retry(frame.welcome.first_retry_ms)
        if frame.notice is not UNSET:
            gear.policy.told_first_retry(frame.notice.first_retry_ms)
        if frame.reject is not UNSET:
            reject = frame.reject
            number = self._run.number(reject.seq)
            gear.callbacks.rejected(frames.Reject(number, reject.error, reject.detail))
        if frame.goaway is not UNSET:
            gear.policy.sent_away(frame.goaway.retry_ms, frame.goaway.ticket or None)
            if not self._away.is_set():
                gear.urls.leave()
            self._away.set()
        if frame.command is not UNSET:
            gear.mailbox.take_command(frame.command)
        gear.board.changed()

    def _on_acked(self, seq: int) -> None:
        """Everything up to `seq` is settled; a seq beyond what was given settles all of the id."""
        gear, run = self._gear, self._run
        gear.store.settle(run.id, seq)
        if seq > self._given:
            self._passed = True
        gear.callbacks.acked(run.number(min(seq, self._given)))

    # Saying

    async def _send(self) -> None:
        board = self._gear.board
        while True:
            version = board.version
            for answer in self._gear.mailbox.take_answers():
                await self.connection.send(answer, text=True)
            if not (await self._say_messages() or await self._change_outbox()):
                await board.changed_since(version)

    async def _say_messages(self) -> bool:
        """Send what may be sent now. Returns whether to look again at once."""
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
            return True  # a hold came while the outbox was read
        objection = limits.objection(batch[0]) if batch else None
        if objection is not None:
            await self._give_up(objection)
            return True
        if not batch or batch[0].seq != session.sent + 1:
            self._passed = True  # the id has no more, or a hole that only a hello can pass
            return True
        frame = session.messages(batch)
        self._given = max(self._given, session.sent)
        await self.connection.send(frame, text=True)
        return True

    async def _give_up(self, objection: frames.Reject) -> None:
        """A message that this gateway can never take: out of the outbox, so that the rest flows."""
        gear = self._gear
        number = self._run.number(objection.seq)
        await gear.store.remove(number)
        gear.board.changed()  # whoever flushes does not wait for it any more
        gear.status.rejected += 1
        _log.warning("message %d can never be sent: %s", number, objection.detail)
        gear.callbacks.rejected(frames.Reject(number, objection.error, objection.detail))

    async def _change_outbox(self) -> bool:
        """Go on with the next id, or behind a hole, once all that was sent is acknowledged."""
        session, store = self._session, self._gear.store
        if not self._passed or not session.is_settled or not store.outbox.messages:
            return False
        run = await store.begin()
        if run.id == self._run.id and run.oldest == session.sent + 1:
            self._passed = False
            return store.outbox.next_number - 1 > run.number(session.sent)
        if not session.can_change:
            raise MovedOn
        self._run, self._given, self._passed = run, run.last, False
        await self.connection.send(
            session.change(run.id, run.oldest, run.age_ms, run.sent), text=True
        )
        async with asyncio.timeout(_HELLO_TIMEOUT_S):
            while session.changing:
                await self._gear.board.changed_since(self._gear.board.version)
        return True

    async def _renew(self) -> None:
        """Present a fresh credential on the open connection before the old one expires."""
        while True:
            fresh = await self._gear.wallet.renewed()
            await self.connection.send(frames.encode_credential(fresh), text=True)

    async def _until_sent_away(self) -> None:
        await self._away.wait()
        raise SentAway


def _worst(failures: list[BaseException]) -> BaseException:
    """Of what ended a session, what weighs most: the application's fault, then the connection's."""
    for kind in (DeviceError, Exception):
        for failure in failures:
            if isinstance(failure, kind) and not isinstance(failure, SentAway):
                return failure
    return failures[0]


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    """End tasks and see what they say. One that will not end is left behind, and told."""
    for task in tasks:
        task.cancel()
    if not tasks:
        return
    _done, stubborn = await asyncio.wait(tasks, timeout=_CANCEL_TIMEOUT_S)
    for task in stubborn:
        _log.error("%s does not end", task.get_name())
    for task in tasks:
        if task.done() and not task.cancelled() and (exc := task.exception()) is not None:
            _log.debug("%s ended with %s", task.get_name(), type(exc).__name__)
