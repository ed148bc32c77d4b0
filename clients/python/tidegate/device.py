"""The device as an application sees it. The parts that it puts together do the work."""

import asyncio
import logging
import ssl as ssl_module
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from msgspec import UNSET, Raw

from tidegate.addresses import UrlRing, parse_address
from tidegate.answers import Refusal
from tidegate.backoff import BackoffSettings, ReconnectPolicy
from tidegate.board import Board
from tidegate.connection import Connect
from tidegate.connector import Connector
from tidegate.credentials import CredentialProvider, static_credential
from tidegate.dialer import Dialer
from tidegate.environment import Environment
from tidegate.errors import DeviceError, Misuse, NotOpen, Rejected
from tidegate.exchange import Callbacks, Command, Mailbox
from tidegate.outbox import Entry, OutboxLimits
from tidegate.outbox_thread import OutboxThread
from tidegate.payload import encode_payload
from tidegate.runner import Gear
from tidegate.session import GatewayLimits
from tidegate.status import KnockRecord, Status
from tidegate.supervisor import Supervisor
from tidegate.tracing import MessageTraces
from tidegate.wallet import Wallet
from tidegate.wire import frames
from tidegate.wire.grammar import is_message_type, is_timestamp

_log = logging.getLogger("tidegate.device")

_STOP_TIMEOUT_S: Final = 5.0


class Connected:
    """Whether a session is established: `is_set()`, `await wait()`, or in an `if`."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def is_set(self) -> bool:
        return self._board.connected

    def __bool__(self) -> bool:
        return self._board.connected

    async def wait(self) -> None:
        """Wait for a session.

        Raises:
            DeviceError: the device has ended, and this is why.
        """
        await self._board.until(self.is_set)


class Device:
    """A device: `async with Device(url, credential, outbox=path) as device: ...`.

    The connection is kept up in the background; sending never waits for it.

    Args:
        url: `ws://` or `wss://` address of the gateway's device endpoint, or several addresses:
            the one that answers is kept, another is tried when it does not.
        credential: a JWT, or a provider that can renew it.
        outbox: file of the outbox. One process at a time can open it.
        limits: what the outbox may hold, and which messages give way when it is full.
        on_ack: called with each acknowledged number; every message up to it is stored. A plain
            function; if it raises, the device ends with `CallbackFailed`.
        on_reject: called for a message that went to the dead letters, or that this gateway can
            never take. A plain function, like `on_ack`.
        backoff: times of reconnecting.
        ssl: for `wss://` addresses; the default trusts the system's certificate authorities.
        open_timeout_s: how long connecting may take.
        ping_interval_s: how often this side probes a silent connection.
        message_bytes_max: largest encoded `data` until the gateway names its own limit.
        traces: follows each message; `tidegate.otel.DeviceTraces` makes OpenTelemetry spans.
        environment: clock, randomness and network. Tests replace it, see `tidegate.testing`.

    Raises:
        BadAddress: not a `ws://` or `wss://` address.
        BadCredential: the token cannot stand in an HTTP header.
        Misuse: a callback is a coroutine function, or `ssl` is given for `ws://` addresses.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        credential: str | CredentialProvider,
        *,
        outbox: Path | str,
        limits: OutboxLimits | None = None,
        on_ack: Callable[[int], None] | None = None,
        on_reject: Callable[[frames.Reject], None] | None = None,
        backoff: BackoffSettings | None = None,
        ssl: ssl_module.SSLContext | None = None,
        open_timeout_s: float = 20.0,
        ping_interval_s: float = 30.0,
        message_bytes_max: int = 65_536,
        traces: MessageTraces | None = None,
        environment: Environment | None = None,
    ) -> None:
        self._environment = environment if environment is not None else Environment()
        clock, rng = self._environment.clock, self._environment.rng
        self._ring = UrlRing(url, rng)
        provider = static_credential(credential) if isinstance(credential, str) else credential
        if not callable(provider):
            raise Misuse(f"a credential is a str or a provider, not {type(provider).__name__}")
        self._wallet = Wallet(provider, clock, rng)
        self._callbacks = Callbacks(on_ack, on_reject, traces)
        self._policy = ReconnectPolicy(backoff or BackoffSettings(), rng)
        connector = Connector(
            clock,
            Dialer(clock),
            tls=_tls(self._ring.urls, ssl),
            open_timeout_s=open_timeout_s,
            ping_interval_s=ping_interval_s,
        )
        self._connect: Connect = self._environment.connect or connector.connect
        self._outbox = outbox, limits
        self._board = Board()
        self._status = Status()
        self._message_bytes_max = message_bytes_max
        self._gear: Gear | None = None
        self._runner: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """
        Raises:
            OutboxError: the outbox file cannot be used, or is open already. Nothing is held then.
            Misuse: the device was started before.
        """
        if self._gear is not None:
            raise Misuse("a Device can be started once; make another")
        environment = self._environment
        store = await OutboxThread.open(*self._outbox, self._board.changed, environment)
        self._gear = gear = Gear(
            clock=environment.clock,
            store=store,
            board=self._board,
            wallet=self._wallet,
            policy=self._policy,
            urls=self._ring,
            mailbox=Mailbox(),
            callbacks=self._callbacks,
            status=self._status,
            limits=GatewayLimits(message_bytes=self._message_bytes_max),
        )
        self._board.open = True
        supervisor = Supervisor(gear, self._connect)
        self._runner = asyncio.create_task(supervisor.run(), name="tidegate-device")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the session and close the outbox, whatever happens. Raises no error of its own."""
        assert self._gear is not None
        assert self._runner is not None
        self._board.open = False
        try:
            self._runner.cancel()
            if await self._gear.clock.ended([self._runner], _STOP_TIMEOUT_S):
                _log.error("the connection does not end; does the credential provider return?")
        finally:
            self._board.end(None)
            if self._callbacks.traces is not None:
                self._callbacks.traces.closed()
            await self._gear.store.close()

    async def send(self, message_type: str, data: Any, *, time: str | None = None) -> int:
        """Queue a message durably.

        Args:
            message_type: one to eight tokens `[A-Za-z0-9_-]{1,64}` joined by dots.
            data: any value with a JSON form; no NaN, no infinity, no bytes.
            time: when it happened, RFC 3339. The default is the gateway's clock at receipt.

        Returns:
            Its number, once the message is on disk. Numbers rise with each message of this outbox
            file. The message will be stored exactly once, whatever happens to this process.

        Raises:
            Rejected: the message cannot be sent unchanged.
            OutboxFull: the outbox is at a bound, and its policy is to refuse.
            OutboxError: the disk refused.
            DeviceError: the device has ended, and this is why.
        """
        gear = self._started()
        if not isinstance(message_type, str) or not is_message_type(message_type):
            raise Rejected(f"type {message_type!r} is not one to eight tokens joined by dots")
        if time is not None and not (isinstance(time, str) and is_timestamp(time)):
            raise Rejected(f"time {time!r} is not an RFC 3339 date-time with offset")
        limits = gear.limits
        encoded = encode_payload(data, bytes_max=limits.message_bytes, depth_max=limits.depth)
        objection = limits.objection(_message(message_type, encoded, time))
        if objection is not None:
            raise Rejected(objection.detail)
        return await self._append(Entry(message_type, encoded, time))

    async def _append(self, entry: Entry) -> int:
        store, traces = self._started().store, self._callbacks.traces
        if traces is None:
            return await store.append(entry)
        begun = traces.begin(entry.type)
        try:
            number = await store.append(entry)
        except BaseException as exc:
            traces.failed(begun, type(exc).__name__)
            raise
        traces.queued(begun, number)
        return number

    async def flush(self) -> None:
        """Wait until everything sent so far is acknowledged and has left the outbox file.

        Raises:
            DeviceError: the device has ended, and this is why; the messages stay in the outbox.
        """
        store = self._started().store
        wanted = store.outbox.next_number - 1
        await self._board.until(lambda: store.outbox.settled >= wanted)
        await store.caught_up()

    async def commands(self) -> AsyncIterator[Command]:
        """Commands as they arrive. Answer each with `answer`. Ends when the device is closed.

        Raises:
            DeviceError: the device has ended by itself, and this is why.
        """
        mailbox = self._started().mailbox
        while True:
            try:
                await self._board.until(lambda: mailbox.commands)
            except NotOpen:
                return
            yield mailbox.commands.popleft()

    async def answer(self, command_id: str, *, ok: bool, data: Any = None) -> None:
        """Answer a command. Best effort: the answer is lost if the connection is.

        Raises:
            Rejected: `data` has no JSON form, or is too large or too deep; or no command can have
                this id.
            DeviceError: the device has ended, and this is why.
        """
        gear = self._started()
        limits = gear.limits
        encoded = encode_payload(data, bytes_max=limits.message_bytes, depth_max=limits.depth)
        gear.mailbox.give_answer(command_id, bool(ok), encoded)
        self._board.changed()

    # State

    @property
    def connected(self) -> Connected:
        """Whether a session is established; `await device.connected.wait()` waits for one."""
        return Connected(self._board)

    @property
    def failure(self) -> DeviceError | None:
        """Why the device has ended by itself, if it has."""
        return self._board.failure

    @property
    def last_error(self) -> str | None:
        """Why the last attempt failed or the last session ended, in words."""
        return self._status.last_error

    @property
    def last_refusal(self) -> Refusal | None:
        """The last refusal or close of the gateway, or of what stands in front of it."""
        return self._status.last_refusal

    @property
    def knocks(self) -> KnockRecord:
        """The attempts to connect so far."""
        return self._status.knocks

    @property
    def rejected(self) -> int:
        """Messages given up because a gateway can never take them; `on_reject` has heard of
        each.
        """
        return self._status.rejected

    @property
    def pending(self) -> int:
        """Messages in the outbox: not yet acknowledged."""
        return self._gear.store.outbox.messages if self._gear is not None else 0

    @property
    def outbox_bytes(self) -> int:
        """Bytes of data in the outbox."""
        return self._gear.store.outbox.bytes if self._gear is not None else 0

    @property
    def dropped(self) -> int:
        """Messages that the outbox dropped at its bound (`drop_oldest`)."""
        return self._gear.store.outbox.dropped if self._gear is not None else 0

    def _started(self) -> Gear:
        self._board.check_open()
        assert self._gear is not None
        return self._gear


def _tls(urls: list[str], given: ssl_module.SSLContext | None) -> ssl_module.SSLContext | None:
    secure = any(parse_address(url).secure for url in urls)
    if given is not None and not isinstance(given, ssl_module.SSLContext):
        raise Misuse(f"ssl is an ssl.SSLContext, not {type(given).__name__}")
    if given is not None and not secure:
        raise Misuse("ssl is given, but no address begins with wss://")
    return given if given is not None or not secure else ssl_module.create_default_context()


def _message(message_type: str, data: bytes, time: str | None) -> frames.Message:
    stamp = UNSET if time is None else time
    return frames.Message(1, message_type, Raw(data), stamp)


__all__ = ["Command", "Connected", "Device", "DeviceError"]
