"""The device as an application sees it. The parts that it puts together do the work."""

import asyncio
import logging
import ssl as ssl_module
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from msgspec import UNSET, Raw

from tidegate.addresses import UrlRing
from tidegate.backoff import BackoffSettings, ReconnectPolicy
from tidegate.board import Connected
from tidegate.command_log import Outcome
from tidegate.connection import Connect
from tidegate.connector import Connector, tls_for
from tidegate.credentials import CredentialProvider, static_credential
from tidegate.desired import Desired
from tidegate.dialer import Dialer
from tidegate.environment import Environment
from tidegate.errors import DeviceError, Misuse, Rejected
from tidegate.exchange import Callbacks, Command
from tidegate.handlers import Handler, Handlers
from tidegate.mailbox import Mailbox
from tidegate.observed import Observed
from tidegate.outbox import Entry, OutboxLimits
from tidegate.outbox_thread import OutboxThread
from tidegate.payload import encode_payload
from tidegate.runner import Gear
from tidegate.session import GatewayLimits
from tidegate.states import State
from tidegate.supervisor import Supervisor
from tidegate.tracing import MessageTraces
from tidegate.wallet import Wallet
from tidegate.wire import frames
from tidegate.wire.grammar import is_message_type, is_timestamp

_log = logging.getLogger("tidegate.device")

_STOP_TIMEOUT_S: Final = 5.0


_HandlerT = TypeVar("_HandlerT", bound=Handler)


@dataclass(frozen=True, slots=True)
class _Options:
    """What a device is given and needs when it starts."""

    outbox: Path | str
    outbox_limits: OutboxLimits | None
    limits: GatewayLimits
    state: bool


class Device(Observed):
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
        state: whether the application wants to know what the device should be like; then `desired`
            and `states` tell it.
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
        state: bool = False,
        environment: Environment | None = None,
    ) -> None:
        super().__init__()
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
            tls=tls_for(self._ring.urls, ssl),
            open_timeout_s=open_timeout_s,
            ping_interval_s=ping_interval_s,
        )
        self._connect: Connect = self._environment.connect or connector.connect
        own_limits = GatewayLimits(message_bytes=message_bytes_max)
        self._options = _Options(outbox, limits, own_limits, state)
        self._handlers = Handlers(self._encode)
        self._runner: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """
        Raises:
            OutboxError: the outbox file cannot be used, or is open already. Nothing is held then.
            Misuse: the device was started before.
        """
        if self._gear is not None:
            raise Misuse("a Device can be started once; make another")
        environment, options = self._environment, self._options
        store = await OutboxThread.open(
            options.outbox, options.outbox_limits, self._board.changed, environment
        )
        self._gear = gear = Gear(
            clock=environment.clock,
            store=store,
            board=self._board,
            wallet=self._wallet,
            policy=self._policy,
            urls=self._ring,
            mailbox=Mailbox(store, self._board, environment.clock),
            desired=Desired(options.state, store, self._board),
            callbacks=self._callbacks,
            handlers=self._handlers,
            status=self._status,
            limits=options.limits,
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
                _log.error("the connection does not end; does the provider or a handler return?")
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
        encoded = self._encode(data)
        stamp = UNSET if time is None else time
        objection = gear.limits.objection(frames.Message(1, message_type, Raw(encoded), stamp))
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

    # Commands and state

    def on(self, command_type: str) -> Callable[[_HandlerT], _HandlerT]:
        """Decorates the handler of a type of commands: a function that takes a `Command`, plain or
        asynchronous. Handlers run one after the other, in the order of the commands.

        What a handler returns is the data of the result. `CommandFailed`, or any other exception,
        is the result `failed`. If the application does not iterate over `commands`, a command
        without a handler is answered `not_understood`.

        Raises:
            Misuse: not a type, or one that has a handler.
        """

        def register(handler: _HandlerT) -> _HandlerT:
            self._handlers.add(command_type, handler)
            self._board.changed()
            return handler

        return register

    def commands(self) -> AsyncIterator[Command]:
        """Commands without a handler, as they arrive. Answer each with `answer`. Ends when the
        device is closed.

        A command of the queue is given once, whatever happens to this process.

        Raises:
            DeviceError: the device has ended by itself, and this is why.
        """
        return self._handlers.others(lambda: self._started().mailbox, self._board)

    async def answer(self, command_id: str, *, ok: bool, data: Any = None) -> None:
        """Answer a command. The result of a queued one is on the disk afterwards, and is sent until
        the gateway has stored it. Any other answer is lost if the connection is.

        Raises:
            Rejected: `data` has no JSON form, or is too large or too deep; no command can have this
                id; or this one is answered already.
            DeviceError: the device has ended, and this is why.
        """
        mailbox = self._started().mailbox
        await mailbox.answer(command_id, Outcome(bool(ok), self._encode(data)))

    def _encode(self, data: Any) -> bytes:
        limits = self._gear.limits if self._gear is not None else self._options.limits
        return encode_payload(data, bytes_max=limits.message_bytes, depth_max=limits.depth)

    @property
    def desired(self) -> dict[str, Any] | None:
        """What the device should be like: the last state that was received, also by an earlier
        process with this outbox file. None if there is none yet.

        Raises:
            Misuse: the device was made without `state=True`.
        """
        state = self._states().state
        return state.desired if state is not None else None

    def states(self) -> AsyncIterator[State]:
        """The present state, and then each newer one. A slow reader gets the newest, not every one,
        and never an older one. Ends when the device is closed.

        Raises:
            Misuse: the device was made without `state=True`.
            DeviceError: the device has ended by itself, and this is why.
        """
        return self._states().states()

    def _states(self) -> Desired:
        if not self._options.state:
            raise Misuse("this device wants no states: make it with Device(..., state=True)")
        return self._gear.desired if self._gear is not None else self._started().desired

    def _started(self) -> Gear:
        self._board.check_open()
        assert self._gear is not None
        return self._gear


__all__ = ["Command", "Connected", "Device", "DeviceError"]
