"""A vehicle on a gevent socket: another shell for the reference client's own policy and session.

What to say and when to knock is decided by `tidegate.session` and `tidegate.backoff` (or another
policy of `policies`), frames are made by the Sans-I/O core of `websockets`; here are the socket,
the waiting, and what is told to whoever watches. One greenlet a vehicle.
"""

import contextlib
import random
import re
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol
from urllib.parse import urlsplit

import gevent
import gevent.socket
import gevent.ssl
import msgspec
from msgspec import UNSET
from websockets.exceptions import WebSocketException
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, State
from websockets.protocol import Protocol as WebSocket

from loadtest.devices.policies import Policy
from loadtest.devices.telemetry import Drive, numbered
from loadtest.devices.wire import handshake_request
from tidegate.backoff import ReconnectPolicy
from tidegate.session import ClientSession, ProtocolViolation
from tidegate.wire import frames

_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3})")
_RETRY: Final = re.compile(rb"Tidegate-Retry-After-Ms: (\d+)")
_TICKET: Final = re.compile(rb"Tidegate-Ticket: ([\w-]+)")
_REASON: Final = re.compile(rb'"(?:reason|error)":"(\w+)"')
_HEAD_BYTES_MAX: Final = 65_536
_CONNECT_TIMEOUT_S: Final = 20.0
_SILENCE_S: Final = 90.0
_BATCH: Final = 100
_OUTBOX_MAX: Final = 10_000


class Refused(Exception):
    """The gateway said no, with a status and perhaps a time."""

    def __init__(self, head: bytes) -> None:
        status, reason = _STATUS.match(head), _REASON.search(head)
        self.status = int(status[1]) if status else 0
        self.reason = reason[1].decode() if reason else "unknown"
        retry, ticket = _RETRY.search(head), _TICKET.search(head)
        self.retry_ms = int(retry[1]) if retry else None
        self.ticket = ticket[1].decode() if ticket else None
        super().__init__(f"{self.status} {self.reason}")


class ClosedByGateway(ConnectionResetError):
    """The gateway closed the session, with a code."""

    def __init__(self, code: int | None) -> None:
        self.code = code
        super().__init__(f"closed with {code}")


class Watcher(Protocol):
    """Who is told what becomes of vehicles. Times in seconds."""

    def knocked(self) -> None: ...

    def welcomed(self, knocking_s: float, waited_s: float, late_s: float | None) -> None:
        """In: after so long for this knock, so long since the connection was lost; with a ticket,
        so late for its slot.
        """

    def refused(self, refusal: Refused, knocking_s: float, *, dishonoured: bool) -> None: ...

    def failed(self, why: str, knocking_s: float) -> None:
        """A knock without an answer."""

    def acked(self, latency_s: float) -> None: ...

    def lost(self) -> None:
        """A session ended that nobody here wanted to end."""


@dataclass(slots=True)
class VehiclePlan:
    """What a vehicle does."""

    urls: Sequence[str]
    token: Callable[[], str]
    """A credential, minted anew each time it is asked for."""
    policy: Policy
    message_rate: float = 0.1
    """Messages a second."""
    begins_at_once: bool = True
    """Knock without the spread of a lost connection: the fleet is only being built up."""
    rng: random.Random = field(default_factory=random.Random)
    context: gevent.ssl.SSLContext | None = None
    """For wss: what the vehicle trusts, shared by all; what the system trusts if None."""


@dataclass(slots=True)
class _Message:
    seq: int
    type: str
    data: bytes
    sent_at: float = 0.0


class _Link:
    """One connection: a socket and the WebSocket core."""

    def __init__(
        self, url: str, token: str, ticket: str | None, context: gevent.ssl.SSLContext | None
    ) -> None:
        """
        Raises:
            OSError: no connection, or cut before it answered.
            Refused: an answer, but not the one hoped for.
        """
        parts = urlsplit(url)
        assert parts.hostname is not None
        port = parts.port or (443 if parts.scheme == "wss" else 80)
        raw = gevent.socket.create_connection((parts.hostname, port), timeout=_CONNECT_TIMEOUT_S)
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if parts.scheme == "wss":
                context = context or gevent.ssl.create_default_context()
                raw = context.wrap_socket(raw, server_hostname=parts.hostname)
            self.socket = raw
            self.socket.sendall(handshake_request(token.encode(), ticket))
            rest = self._head()
        except BaseException:  # a killed greenlet's too: the socket is nobody's yet
            raw.close()
            raise
        self._core = WebSocket(CLIENT, state=State.OPEN)
        self._early = rest

    def _head(self) -> bytes:
        head = b""
        while b"\r\n\r\n" not in head:
            data = self.socket.recv(8_192)
            if not data or len(head) > _HEAD_BYTES_MAX:
                raise ConnectionResetError("closed before it answered")
            head += data
        if not head.startswith(b"HTTP/1.1 101"):
            with contextlib.suppress(OSError):  # the body is in the same segment nearly always
                self.socket.settimeout(1.0)
                while data := self.socket.recv(8_192):
                    head += data
            raise Refused(head)
        return head.partition(b"\r\n\r\n")[2]

    def say(self, text: bytes) -> None:
        self._core.send_text(text)
        self._flush()

    def hear(self, until: float) -> list[bytes]:
        """Texts that came, waiting until then at most.

        Raises:
            OSError: the connection is gone.
            WebSocketException: what came is no WebSocket.
        """
        if self._early:
            data, self._early = self._early, b""
        else:
            try:
                self.socket.settimeout(max(0.001, until - time.monotonic()))
                data = self.socket.recv(65_536)
            except TimeoutError:
                return []
            if not data:
                raise ConnectionResetError("closed by the gateway")
        self._core.receive_data(data)
        texts = [
            bytes(event.data)
            for event in self._core.events_received()
            if isinstance(event, Frame) and event.opcode is Opcode.TEXT
        ]
        self._flush()
        if self._core.state is not State.OPEN:
            received = self._core.close_rcvd
            raise ClosedByGateway(received.code if received is not None else None)
        return texts

    def _flush(self) -> None:
        for data in self._core.data_to_send():
            if data:
                self.socket.sendall(data)

    def close(self) -> None:
        """Say goodbye, and do not wait for the answer."""
        with contextlib.suppress(OSError, WebSocketException):
            self._core.send_close(1000, "")
            self._flush()
        self.socket.close()

    def cut(self) -> None:
        """The network is gone: no goodbye, a reset at most."""
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.socket.close()


class Vehicle:
    """Keeps one session up and reports its drive, until its greenlet is killed."""

    def __init__(self, name: str, plan: VehiclePlan, watcher: Watcher) -> None:
        self.name = name
        self._plan = plan
        self._watcher = watcher
        self._rng = plan.rng
        self._urls = list(plan.urls)
        self._rng.shuffle(self._urls)
        self._drive = Drive(self._rng)
        self._outbox: deque[_Message] = deque()
        self._next_seq = 1
        self._lost_at = time.monotonic()
        self._due = 0.0
        self._link: _Link | None = None
        self._token = plan.token()
        period_s = 1 / plan.message_rate if plan.message_rate > 0 else float("inf")
        self._period_s = period_s
        self._next_message_at = time.monotonic() + self._rng.uniform(0, min(period_s, 3_600))
        self.acked = 0
        self.inside = False

    def run(self) -> None:
        """Until killed."""
        if not self._plan.begins_at_once:
            self._wait(self._plan.policy.next_delay_ms() / 1_000)
        try:
            while True:
                link = self._knock()
                if link is not None:
                    self._drive_on(link)
                self._wait(self._plan.policy.next_delay_ms() / 1_000)
        finally:
            if self._link is not None:
                self._link.close()

    def cut(self) -> None:
        """Its network is gone for a moment."""
        if self._link is not None:
            self._link.cut()

    @property
    def pending(self) -> int:
        """Messages produced and not yet acknowledged."""
        return len(self._outbox)

    @property
    def url(self) -> str:
        """Where it is, or will knock next."""
        return self._urls[0]

    def _wait(self, seconds: float) -> None:
        self._due = time.monotonic() + seconds
        while (left := self._due - time.monotonic()) > 0:
            gevent.sleep(left)

    def _knock(self) -> tuple[_Link, ClientSession, frames.Welcome] | None:
        plan, watcher = self._plan, self._watcher
        began = time.monotonic()
        shown = plan.policy.ticket
        late_s = began - self._due if shown else None
        watcher.knocked()
        try:
            link = _Link(self._urls[0], self._token, shown, plan.context)
        except Refused as refusal:
            watcher.refused(
                refusal, time.monotonic() - began,
                dishonoured=shown is not None and refusal.reason == "rate",
            )  # fmt: skip
            if refusal.status in (429, 503):
                plan.policy.refused(refusal.retry_ms, refusal.ticket)
            elif refusal.status in (401, 403):
                self._token = plan.token()
                plan.policy.distrusted()
            else:
                plan.policy.failed()
            self._urls.append(self._urls.pop(0))
            return None
        except OSError as exc:
            self._failed(exc, began, silent=True)
            return None
        try:
            session, welcome = self._greet(link)
        except (OSError, WebSocketException, ProtocolViolation) as exc:
            link.cut()
            self._failed(exc, began, silent=False)
            return None
        now = time.monotonic()
        watcher.welcomed(now - began, now - self._lost_at, late_s)
        return link, session, welcome

    def _failed(self, why: Exception, began: float, *, silent: bool) -> None:
        lasted_s = time.monotonic() - began
        self._watcher.failed(f"{type(why).__name__}: {why}", lasted_s)
        if silent:
            self._plan.policy.silent(lasted_s * 1_000)
        else:
            self._plan.policy.failed()
        self._urls.append(self._urls.pop(0))

    def _greet(self, link: _Link) -> tuple[ClientSession, frames.Welcome]:
        oldest = self._outbox[0] if self._outbox else None
        age_s = time.monotonic() - oldest.sent_at if oldest is not None and oldest.sent_at else 0.0
        seq = oldest.seq if oldest is not None else self._next_seq
        session = ClientSession("storm", seq, int(age_s * 1_000))
        link.say(session.hello())
        deadline = time.monotonic() + _CONNECT_TIMEOUT_S
        while session.welcome is None:
            if time.monotonic() > deadline:
                raise TimeoutError("no welcome")
            for text in link.hear(deadline):
                session.receive(text)
        return session, session.welcome

    def _drive_on(self, made: tuple[_Link, ClientSession, frames.Welcome]) -> None:
        """Serve one session, and the next one at once if it sends us there."""
        while True:
            link, session, welcome = made
            policy = self._plan.policy
            policy.opened()
            policy.told_first_retry(welcome.first_retry_ms)
            self._link, self.inside = link, True
            began = time.monotonic()
            self._settle(session.acked)
            try:
                self._serve(link, session)
            except (OSError, WebSocketException, ProtocolViolation) as exc:
                self._watcher.lost()
                self._lost_at = time.monotonic()
                link.cut()
                if isinstance(exc, ClosedByGateway) and exc.code == frames.CLOSE_CREDENTIAL:
                    self._token = self._plan.token()
                policy.closed((self._lost_at - began) * 1_000)
                self._link, self.inside = None, False
                return
            # Sent away: the next connection is made before this one is broken.
            self._lost_at = time.monotonic()
            self._urls.append(self._urls.pop(0))
            self._wait(policy.next_delay_ms() / 1_000)
            following = self._knock()
            link.close()
            self._link = None
            if following is None:
                self.inside = False
                return
            made = following

    def _serve(self, link: _Link, session: ClientSession) -> None:
        """Until the gateway sends us away.

        Raises:
            OSError, WebSocketException, ProtocolViolation: the session is over.
        """
        heard_at = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= self._next_message_at:
                self._produce(now)
            self._send(link, session)
            texts = link.hear(min(self._next_message_at, heard_at + _SILENCE_S))
            if texts:
                heard_at = time.monotonic()
            elif time.monotonic() > heard_at + _SILENCE_S:
                raise TimeoutError("silence")
            for text in texts:
                frame = session.receive(text)
                if frame.ack is not UNSET:
                    self._settle(session.acked)
                if frame.notice is not UNSET:
                    self._plan.policy.told_first_retry(frame.notice.first_retry_ms)
                if frame.goaway is not UNSET:
                    self._sent_away(frame.goaway)
                    return

    def _sent_away(self, goaway: frames.Goaway) -> None:
        policy = self._plan.policy
        if isinstance(policy, ReconnectPolicy):
            policy.sent_away(goaway.retry_ms, goaway.ticket or None)
        else:
            policy.closed(60_000)

    def _produce(self, now: float) -> None:
        """What the drive has to report by now; nothing while the outbox is full."""
        while self._next_message_at <= now:
            self._next_message_at += self._period_s
            self._drive.advance(min(self._period_s, 60.0))
            if len(self._outbox) < _OUTBOX_MAX:
                kind, signals = self._drive.sample()
                self._outbox.append(
                    _Message(self._next_seq, kind, numbered(self._next_seq, signals))
                )
                self._next_seq += 1

    def _send(self, link: _Link, session: ClientSession) -> None:
        while session.window and self._outbox and self._outbox[-1].seq > session.sent:
            first = session.sent + 1 - self._outbox[0].seq
            last = first + min(session.window, _BATCH)
            batch = [self._outbox[place] for place in range(first, min(last, len(self._outbox)))]
            now = time.monotonic()
            for message in batch:
                message.sent_at = now
            link.say(
                session.messages(
                    [
                        frames.Message(message.seq, message.type, msgspec.Raw(message.data))
                        for message in batch
                    ]
                )
            )

    def _settle(self, seq: int) -> None:
        now = time.monotonic()
        while self._outbox and self._outbox[0].seq <= seq:
            message = self._outbox.popleft()
            if message.sent_at:
                self._watcher.acked(now - message.sent_at)
        self.acked = max(self.acked, seq)
