"""The asyncio device: keeps one session up, empties the outbox into it. Shell of `session`."""

import asyncio
import contextlib
import json
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from msgspec import UNSET
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.http11 import Response
from websockets.typing import Subprotocol

from clients.backoff import BackoffSettings, ReconnectPolicy
from clients.credentials import CredentialProvider, expires_at, static_credential
from clients.errors import (
    CredentialRefused,
    DeviceError,
    OutboxError,
    OutboxFull,
    Rejected,
    Unreachable,
)
from clients.outbox import Entry, Outbox, OutboxLimits, Run
from clients.session import ClientSession, ProtocolViolation
from gateway.session import frames
from gateway.session.grammar import is_message_type, is_timestamp

_log = logging.getLogger("tidegate.device")

_FRAME_BYTES_MAX: Final = 65_536
_COMMANDS_MAX: Final = 1_000
_RENEW_SHARE: Final = (0.7, 0.9)
_HELLO_TIMEOUT_S: Final = 20.0
_KEEP_INTERVAL_S: Final = 5.0


@dataclass(slots=True)
class KnockRecord:
    """How a device has knocked so far. Lateness in milliseconds after the time it was given."""

    knocks: int = 0
    refusals: int = 0
    lateness_ms: float = 0.0
    """Of the last knock that had a time."""
    lateness_ms_max: float = 0.0


@dataclass(frozen=True, slots=True)
class Command:
    """A command for this device, its data decoded."""

    id: str
    type: str
    data: Any


class _SentAway(Exception):
    """The gateway named another slot; this connection lives on until the next one stands."""


class _Skipped(Exception):
    """Messages were dropped from the outbox before they were sent."""


class _NextOutbox(Exception):
    """This id is drained, and what follows in the outbox is under another one."""


@dataclass(frozen=True, slots=True)
class _Served:
    """A session, and what it drains."""

    session: ClientSession
    run: Run

    @property
    def sent(self) -> int:
        """The number of the last message sent."""
        return self.run.number(self.session.sent)


class Device:
    """A device: `async with Device(url, credential, outbox=path) as device: ...`.

    The connection is kept up in the background; sending never waits for it.
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
        rng: random.Random | None = None,
        open_timeout_s: float = 20.0,
        ping_interval_s: float = 30.0,
        message_bytes_max: int = 65_536,
    ) -> None:
        """
        Args:
            url: `ws://` or `wss://` address of the gateway's device endpoint, or several: another
                is tried after each attempt that did not end in a session.
            credential: a JWT, or a provider that can renew it.
            outbox: file of the outbox; one process at a time.
            limits: what it may hold, and what gives way when it is full.
            on_ack: called with the number of an acknowledged message (everything up to it is
                settled).
            on_reject: called for a message that went to the dead letters; its `seq` is the number
                that `send` returned.
            backoff: times of reconnecting.
            rng: source of jitter.
            open_timeout_s: how long connecting may take.
            ping_interval_s: how often a silent connection is probed from this side.
            message_bytes_max: largest encoded `data` until the gateway names its own limit.
        """
        self._urls = [url] if isinstance(url, str) else list(url)
        self._provider = (
            static_credential(credential) if isinstance(credential, str) else credential
        )
        self._outbox_path = outbox
        self._limits = limits
        self._on_ack = on_ack
        self._on_reject = on_reject
        self._rng = rng if rng is not None else random.Random()
        self._rng.shuffle(self._urls)
        self._policy = ReconnectPolicy(backoff or BackoffSettings(), self._rng)
        self._open_timeout_s = open_timeout_s
        self._ping_interval_s = ping_interval_s
        self._message_bytes_max = message_bytes_max
        # One thread owns the database; the loop never waits for the disk.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tidegate-outbox")
        self._outbox: Outbox | None = None
        self._runner: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._appender: asyncio.Task[None] | None = None
        self._appends: list[tuple[Entry, asyncio.Future[int]]] = []
        self._last_number = 0
        self._acked = 0
        self._changed = asyncio.Event()
        self._progress = asyncio.Condition()
        self._commands: asyncio.Queue[Command] = asyncio.Queue(_COMMANDS_MAX)
        self._answers: list[bytes] = []
        self._token: str | None = None
        self._ended = False
        self._sent_away = asyncio.Event()
        self._old: tuple[ClientConnection, asyncio.Task[None]] | None = None
        self.knocks = KnockRecord()
        self.connected = asyncio.Event()
        """Set while a session is established."""
        self.failure: DeviceError | None = None
        """Why the device has given up connecting, if it has."""

    async def __aenter__(self) -> Self:
        opening = asyncio.ensure_future(
            self._in_thread(Outbox, self._outbox_path, self._limits)  # the thread goes on, whatever
        )
        try:
            self._outbox = outbox = await asyncio.shield(opening)
        except OutboxError:
            self._thread.shutdown(wait=False)
            raise
        except asyncio.CancelledError:
            opening.add_done_callback(self._close_unused)
            raise
        self._last_number = outbox.next_number - 1
        self._runner = asyncio.create_task(self._run(), name="tidegate-device")
        self._keeper = asyncio.create_task(self._keep(), name="tidegate-keep")
        return self

    def _close_unused(self, opening: asyncio.Future[Outbox]) -> None:
        """Entering was cancelled: what the thread has opened meanwhile must not stay locked."""
        if not opening.cancelled() and opening.exception() is None:
            self._thread.submit(opening.result().close)
        self._thread.shutdown(wait=False)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in (self._runner, self._keeper, self._appender):
            if task is not None:
                if task is not self._appender:
                    task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        await self._retire_old()
        assert self._outbox is not None
        await self._in_thread(self._outbox.close)
        self._thread.shutdown()

    async def send(self, message_type: str, data: Any, *, time: str | None = None) -> int:
        """Queue a message durably.

        Args:
            message_type: one to eight tokens `[A-Za-z0-9_-]{1,64}` joined by dots.
            data: any value with a JSON form.
            time: when it happened, RFC 3339; the gateway's clock at receipt without.

        Returns:
            Its number in this outbox, once it is on disk; numbers rise. It will be stored exactly
            once, whatever happens to this process.

        Raises:
            Rejected: it cannot be sent as it is.
            OutboxFull: the outbox is at its bound, and its policy is to refuse.
            OutboxError: the disk refused.
        """
        if not is_message_type(message_type):
            raise Rejected(f"type {message_type!r} is not one to eight tokens joined by dots")
        if time is not None and not is_timestamp(time):
            raise Rejected(f"time {time!r} is not an RFC 3339 date-time with offset")
        try:
            encoded = frames.encode_data(data)
        except (TypeError, ValueError, RecursionError) as exc:
            raise Rejected(f"data has no JSON form: {exc}") from None
        if len(encoded) > self._message_bytes_max:
            raise Rejected(f"data is {len(encoded)} bytes, over {self._message_bytes_max}")
        stored: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._appends.append((Entry(message_type, encoded, time), stored))
        if self._appender is None or self._appender.done():
            self._appender = asyncio.create_task(self._append(), name="tidegate-append")
        return await stored

    async def flush(self) -> None:
        """Wait until everything sent so far is acknowledged.

        Raises:
            DeviceError: the device has given up connecting; the messages stay in the outbox.
        """
        wanted = self._last_number
        async with self._progress:
            await self._progress.wait_for(lambda: self._settled >= wanted or self._ended)
        if self._settled < wanted:
            raise self.failure or DeviceError("the device is closed")

    async def commands(self) -> AsyncIterator[Command]:
        """Commands as they come, for ever. Answer each with `answer`."""
        while True:
            yield await self._commands.get()

    async def answer(self, command_id: str, *, ok: bool, data: Any = None) -> None:
        """Answer a command. Best effort: lost if the connection is.

        Raises:
            Rejected: `data` has no JSON form.
        """
        try:
            raw = msgspec.Raw(frames.encode_data(data))
        except (TypeError, ValueError) as exc:
            raise Rejected(f"data has no JSON form: {exc}") from None
        self._answers.append(frames.encode_named("result", frames.Result(command_id, ok, raw)))
        self._changed.set()

    @property
    def pending(self) -> int:
        """Messages sent and not yet acknowledged."""
        return self._outbox.messages if self._outbox is not None else 0

    @property
    def _settled(self) -> int:
        return self._outbox.settled if self._outbox is not None else 0

    @property
    def outbox_bytes(self) -> int:
        """Bytes of data in the outbox."""
        return self._outbox.bytes if self._outbox is not None else 0

    @property
    def dropped(self) -> int:
        """Messages the outbox gave up at its bound (`drop_oldest`)."""
        return self._outbox.dropped if self._outbox is not None else 0

    async def _in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def _append(self) -> None:
        """Group commit: whatever was sent while the last commit ran shares the next one's sync."""
        assert self._outbox is not None
        while self._appends:
            taken, self._appends = self._appends, []
            try:
                results = await self._in_thread(self._outbox.append, [each for each, _ in taken])
            except OutboxError as exc:
                for _entry, stored in taken:
                    if not stored.done():
                        stored.set_exception(exc)
                continue
            self._last_number = self._outbox.next_number - 1
            for (_entry, stored), result in zip(taken, results, strict=True):
                if stored.done():
                    continue
                if isinstance(result, OutboxFull):
                    stored.set_exception(result)
                else:
                    stored.set_result(result)
            self._changed.set()
            await self._tell_progress()  # what was dropped is not waited for

    async def _tell_progress(self) -> None:
        async with self._progress:
            self._progress.notify_all()

    async def _keep(self) -> None:
        """The outbox's housekeeping: bounds of age, room given back, what the disk refused."""
        assert self._outbox is not None
        while True:
            await asyncio.sleep(_KEEP_INTERVAL_S)
            try:
                while await self._in_thread(self._outbox.tend):
                    pass
            except OutboxError as exc:
                _log.warning("%s", exc)
            await self._tell_progress()

    # Connecting

    async def _run(self) -> None:
        try:
            self._token = await self._provider(None)
            while True:
                await self._wait_for_turn()
                await self._attempt()
        except DeviceError as exc:
            _log.error("giving up: %s", exc)  # the message is whole
            self.failure = exc
        finally:
            # Whatever ended it, nobody may wait in `flush` for acknowledgements that cannot come.
            self._ended = True
            await self._tell_progress()

    async def _wait_for_turn(self) -> None:
        """Wait as the policy says; never less, whatever the timers' resolution."""
        given = self._policy.has_floor
        due = time.monotonic() + self._policy.next_delay_ms() / 1000
        while (left := due - time.monotonic()) > 0:  # noqa: ASYNC110  # a timer may be early
            await asyncio.sleep(left)
        if given:
            record = self.knocks
            record.lateness_ms = (time.monotonic() - due) * 1000
            record.lateness_ms_max = max(record.lateness_ms_max, record.lateness_ms)

    async def _attempt(self) -> None:
        self.knocks.knocks += 1
        headers = {"Authorization": f"Bearer {self._token}"}
        if self._policy.ticket is not None:
            headers[frames.TICKET_HEADER] = self._policy.ticket
        try:
            connection = await connect(
                self._urls[0],
                subprotocols=[Subprotocol(frames.SUBPROTOCOL)],
                additional_headers=headers,
                user_agent_header=None,
                compression=None,
                proxy=None,
                open_timeout=self._open_timeout_s,
                ping_interval=self._ping_interval_s,
                ping_timeout=self._ping_interval_s,
                max_size=_FRAME_BYTES_MAX * 16,
            ).__aenter__()
        except InvalidStatus as exc:
            await self._on_refused(exc.response)
        except (OSError, TimeoutError, InvalidHandshake, ConnectionClosed) as exc:
            _log.info("cannot connect: %s", exc)
            self._policy.failed()
            self._try_another_url()
        else:
            await self._on_connected(connection)

    async def _on_refused(self, response: Response) -> None:
        body = _json_object(bytes(response.body or b""))
        error = body.get("error", f"HTTP {response.status_code}")
        if response.status_code in (401, 403):
            why = str(body.get("detail") or error)
            self.connected.clear()
            self._token = await self._provider(why)
        elif response.status_code in (429, 503):
            retry_ms = _retry_ms(response)
            ticket = response.headers.get(frames.TICKET_HEADER)
            _log.info("refused (%s), retry in %s ms", body.get("reason", error), retry_ms)
            self.knocks.refusals += 1
            self._policy.refused(retry_ms, ticket)
            self._try_another_url()
        elif response.status_code in (400, 404, 426):
            raise Unreachable(f"{self._urls[0]}: {error}: {body.get('detail', '')}")
        else:
            self._policy.failed()
            self._try_another_url()

    def _try_another_url(self) -> None:
        self._urls.append(self._urls.pop(0))

    async def _on_connected(self, connection: ClientConnection) -> None:
        """Serve a session until it ends, or until it is sent away and left open behind us."""
        self._policy.opened()
        self._sent_away.clear()
        began = time.monotonic()
        tasks: list[asyncio.Task[None]] = []
        try:
            served = await self._greet(connection)
            self.connected.set()
            receiving = asyncio.create_task(
                self._receive(connection, served), name="tidegate-receive"
            )
            away = asyncio.create_task(self._until_sent_away(), name="tidegate-away")
            tasks = [
                receiving,
                asyncio.create_task(self._send(connection, served), name="tidegate-send"),
                asyncio.create_task(self._renew(connection), name="tidegate-renew"),
                away,
            ]
            # Made before broken: only now is the connection that sent us here given up.
            await self._retire_old()
            done, _pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                await task
        except _SentAway:
            # Its acknowledgements are heard until the next connection stands.
            tasks.remove(receiving)
            receiving.add_done_callback(self._on_old_lost)
            self._old = (connection, receiving)
        except ConnectionClosed as exc:
            await self._on_closed(exc)
        except _NextOutbox:
            _log.info("one outbox id is drained, the next one follows")
        except (ProtocolViolation, TimeoutError, _Skipped) as exc:
            _log.warning("session ended: %s", exc)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._policy.closed((time.monotonic() - began) * 1000)
            if self._old is None or self._old[0] is not connection:
                self.connected.clear()
                await connection.close()

    async def _until_sent_away(self) -> None:
        await self._sent_away.wait()
        raise _SentAway

    def _on_old_lost(self, _receiving: asyncio.Task[None]) -> None:
        self.connected.clear()

    async def _retire_old(self) -> None:
        if self._old is None:
            return
        (connection, receiving), self._old = self._old, None
        receiving.remove_done_callback(self._on_old_lost)
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)
        await connection.close()

    async def _greet(self, connection: ClientConnection) -> _Served:
        assert self._outbox is not None
        run = await self._in_thread(self._outbox.begin)
        session = ClientSession(run.id, run.oldest, run.age_ms)
        served = _Served(session, run)
        await connection.send(session.hello(), text=True)
        async with asyncio.timeout(_HELLO_TIMEOUT_S):
            await self._hear(served, await connection.recv(decode=False))
        if session.welcome is None:
            raise ProtocolViolation("no welcome")
        self._message_bytes_max = session.welcome.max_message_bytes
        return served

    async def _receive(self, connection: ClientConnection, served: _Served) -> None:
        while True:
            await self._hear(served, await connection.recv(decode=False))

    async def _hear(self, served: _Served, text: bytes | str) -> None:
        assert isinstance(text, bytes)
        session = served.session
        acked = session.acked
        frame = session.receive(text)
        if session.acked > acked:
            await self._on_acked(served)
        if frame.welcome is not UNSET:
            self._policy.told_first_retry(frame.welcome.first_retry_ms)
        if frame.notice is not UNSET:
            self._policy.told_first_retry(frame.notice.first_retry_ms)
        if frame.reject is not UNSET and self._on_reject is not None:
            rejected = frame.reject
            number = served.run.number(rejected.seq)
            self._on_reject(frames.Reject(number, rejected.error, rejected.detail))
        if frame.goaway is not UNSET:
            self._policy.sent_away(frame.goaway.retry_ms, frame.goaway.ticket or None)
            self._try_another_url()
            self._sent_away.set()
        if frame.command is not UNSET:
            command = frame.command
            data = json.loads(bytes(command.data))
            with contextlib.suppress(asyncio.QueueFull):  # unread commands are not kept for ever
                self._commands.put_nowait(Command(command.id, command.type, data))
        self._changed.set()

    async def _on_acked(self, served: _Served) -> None:
        assert self._outbox is not None
        try:
            await self._in_thread(self._outbox.settle, served.run.id, served.session.acked)
        except OutboxError as exc:
            _log.warning("acknowledged, not yet deleted: %s", exc)  # `tend` tries again
        if self._settled > self._acked:
            self._acked = self._settled
            if self._on_ack is not None:
                self._on_ack(self._acked)
        await self._tell_progress()

    async def _send(self, connection: ClientConnection, served: _Served) -> None:
        assert self._outbox is not None
        session = served.session
        while True:
            self._changed.clear()
            answers, self._answers = self._answers, []
            for answer in answers:
                await connection.send(answer, text=True)
            if session.window and served.sent < self._last_number:
                batch = await self._in_thread(self._read, served, min(session.window, 1_000))
                if len(batch) > session.window:
                    continue  # a hold came while the outbox was read
                if batch and batch[0].seq != session.sent + 1:
                    raise _Skipped  # the outbox dropped what was next: only a hello can say so
                if batch:
                    await connection.send(session.messages(batch), text=True)
                    continue
                if session.acked == session.sent:
                    following = await self._in_thread(self._outbox.begin)
                    if following.id != served.run.id:
                        raise _NextOutbox
            await self._changed.wait()

    def _read(self, served: _Served, messages_max: int) -> list[frames.Message]:
        assert self._outbox is not None
        return self._outbox.read(
            served.run.id,
            served.session.sent,
            messages_max=messages_max,
            bytes_max=_FRAME_BYTES_MAX,
        )

    async def _renew(self, connection: ClientConnection) -> None:
        """Present a fresh credential on the open connection before the old one expires."""
        while True:
            token = self._token
            end = expires_at(token) if token is not None else None
            if end is None:
                return
            # At random within its last third: a fleet's credentials must not be renewed at once.
            await asyncio.sleep(max(1.0, (end - time.time()) * self._rng.uniform(*_RENEW_SHARE)))
            fresh = await self._provider(None)
            if fresh != token:
                self._token = fresh
                await connection.send(frames.encode_credential(fresh), text=True)

    async def _on_closed(self, exc: ConnectionClosed) -> None:
        code = exc.rcvd.code if exc.rcvd is not None else 1006
        reason = exc.rcvd.reason if exc.rcvd is not None else "connection lost"
        _log.info("closed: %d %s", code, reason)
        if code in (frames.CLOSE_CREDENTIAL, frames.CLOSE_REVOKED):
            self._token = await self._provider(reason)
        elif code == frames.CLOSE_TRY_AGAIN_LATER:
            hint = _json_object(reason.encode())
            retry_ms = hint.get("retry_ms")
            self._policy.refused(
                retry_ms if isinstance(retry_ms, int) else None, hint.get("ticket") or None
            )
        elif code != frames.CLOSE_GOING_AWAY and exc.rcvd is not None:
            # Offence or takeover: coming straight back would do it again.
            self._policy.failed()


def _json_object(text: bytes) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _retry_ms(response: Response) -> int | None:
    exact = response.headers.get(frames.RETRY_AFTER_MS_HEADER)
    if exact is not None and exact.isdecimal():
        return int(exact)
    seconds = response.headers.get("Retry-After")
    return int(seconds) * 1000 if seconds is not None and seconds.isdecimal() else None


__all__ = ["Command", "CredentialRefused", "Device"]
