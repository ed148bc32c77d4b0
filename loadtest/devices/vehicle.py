"""A vehicle of locust: one greenlet that keeps a session up and reports its drive.

`tidegate.session` and `tidegate.backoff` (or another policy of `policies.py`) decide what to say
and when to knock, as they do in the reference client. This module has the waiting, the outbox in
memory, and what a watcher is told.
"""

import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import gevent
import gevent.ssl
import msgspec
from msgspec import UNSET

from loadtest.devices.gevent_link import CONNECT_TIMEOUT_S, ClosedByGateway, Link, Refused
from loadtest.devices.payloads import numbered
from loadtest.devices.policies import Policy
from loadtest.devices.telemetry import Drive
from loadtest.devices.tickets import is_dishonoured
from tidegate.backoff import ReconnectPolicy
from tidegate.errors import ProtocolViolation
from tidegate.session import ClientSession
from tidegate.wire import frames

_SILENCE_S: Final = 90.0
_BATCH: Final = 100
_OUTBOX_MAX: Final = 10_000
_STEP_MAX_S: Final = 60.0
"""The longest step of a drive: a vehicle that reports once an hour still drives on roads."""
_LONG_SESSION_MS: Final = 60_000


class Watcher(Protocol):
    """Is told what becomes of vehicles. Times in seconds."""

    def knocked(self) -> None: ...

    def welcomed(self, knocking_s: float, waited_s: float, late_s: float | None) -> None:
        """A device was welcomed.

        Args:
            knocking_s: how long this knock took.
            waited_s: how long ago the connection was lost.
            late_s: how late the knock was for the slot of its ticket; None without a ticket.
        """

    def refused(self, refusal: Refused, knocking_s: float, *, dishonoured: bool) -> None:
        """A knock was refused.

        Args:
            refusal: what the gateway answered.
            knocking_s: how long this knock took.
            dishonoured: whether the device showed a ticket that the gateway must honour.
        """

    def failed(self, why: str, knocking_s: float) -> None:
        """A knock got no answer."""

    def acked(self, latency_s: float) -> None: ...

    def lost(self) -> None:
        """A session ended, and not because the device ended it."""


@dataclass(slots=True)
class VehiclePlan:
    """What a vehicle does."""

    urls: Sequence[str]
    token: Callable[[], str]
    """Mints a new credential at each call."""
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


class _Reports:
    """What a vehicle has to report, produced as it drives and kept until it is acknowledged."""

    def __init__(self, message_rate: float, rng: random.Random) -> None:
        self._drive = Drive(rng)
        self._period_s = 1 / message_rate if message_rate > 0 else float("inf")
        self.due_at = time.monotonic() + rng.uniform(0, min(self._period_s, 3_600))
        """When the next message is produced."""
        self.next_seq = 1
        self.outbox: deque[_Message] = deque()
        self.acked = 0

    def produce(self, now: float) -> None:
        """Produce what is due by now; a full outbox takes no more."""
        while self.due_at <= now:
            self.due_at += self._period_s
            self._drive.advance(min(self._period_s, _STEP_MAX_S))
            if len(self.outbox) < _OUTBOX_MAX:
                kind, signals = self._drive.sample()
                self.outbox.append(_Message(self.next_seq, kind, numbered(self.next_seq, signals)))
                self.next_seq += 1

    def session(self) -> ClientSession:
        """A session that begins with the oldest message of the outbox."""
        if not self.outbox:
            return ClientSession("storm", self.next_seq, 0)
        oldest = self.outbox[0]
        age_s = time.monotonic() - oldest.sent_at if oldest.sent_at else 0.0
        return ClientSession("storm", oldest.seq, int(age_s * 1_000))

    def send(self, link: Link, session: ClientSession) -> None:
        """Send what the session has credit for."""
        while session.window and self.outbox and self.outbox[-1].seq > session.sent:
            first = session.sent + 1 - self.outbox[0].seq
            last = min(first + min(session.window, _BATCH), len(self.outbox))
            batch = [self.outbox[place] for place in range(first, last)]
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

    def settle(self, seq: int, acked: Callable[[float], None]) -> None:
        """Forget what is settled; `acked` is called with the latency of each message."""
        now = time.monotonic()
        while self.outbox and self.outbox[0].seq <= seq:
            message = self.outbox.popleft()
            if message.sent_at:
                acked(now - message.sent_at)
        self.acked = max(self.acked, seq)


class Vehicle:
    """Keeps one session up and reports its drive, until its greenlet is killed."""

    def __init__(self, name: str, plan: VehiclePlan, watcher: Watcher) -> None:
        self.name = name
        self._plan = plan
        self._watcher = watcher
        self._urls = list(plan.urls)
        plan.rng.shuffle(self._urls)
        self._reports = _Reports(plan.message_rate, plan.rng)
        self._token = plan.token()
        self._lost_at = time.monotonic()
        self._due = 0.0
        self._link: Link | None = None

    def run(self) -> None:
        """Drive until killed."""
        if not self._plan.begins_at_once:
            self._wait(self._plan.policy.next_delay_ms() / 1_000)
        try:
            while True:
                made = self._knock()
                if made is not None:
                    self._drive_on(*made)
                self._wait(self._plan.policy.next_delay_ms() / 1_000)
        finally:
            if self._link is not None:
                self._link.close()

    def cut(self) -> None:
        """The vehicle's network is gone for a moment."""
        if self._link is not None:
            self._link.cut()

    @property
    def inside(self) -> bool:
        """Whether the vehicle has a session."""
        return self._link is not None

    @property
    def acked(self) -> int:
        """The last seq that was acknowledged."""
        return self._reports.acked

    @property
    def pending(self) -> int:
        """Messages produced and not yet acknowledged."""
        return len(self._reports.outbox)

    @property
    def url(self) -> str:
        """The gateway of the session, or the one of the next knock."""
        return self._urls[0]

    def _wait(self, seconds: float) -> None:
        self._due = time.monotonic() + seconds
        while (left := self._due - time.monotonic()) > 0:
            gevent.sleep(left)

    def _turn(self) -> None:
        self._urls.append(self._urls.pop(0))

    def _knock(self) -> tuple[Link, ClientSession] | None:
        plan, watcher = self._plan, self._watcher
        began = time.monotonic()
        shown = plan.policy.ticket
        late_s = began - self._due if shown else None
        watcher.knocked()
        try:
            link = Link(self._urls[0], self._token, shown, plan.context)
        except Refused as refusal:
            dishonoured = is_dishonoured(shown, refusal.answer.reason)
            watcher.refused(refusal, time.monotonic() - began, dishonoured=dishonoured)
            self._hear_refusal(refusal)
            return None
        except OSError as exc:
            self._failed(exc, began, silent=True)
            return None
        try:
            session = self._greet(link)
        except (OSError, ProtocolViolation) as exc:
            link.cut()
            self._failed(exc, began, silent=False)
            return None
        now = time.monotonic()
        watcher.welcomed(now - began, now - self._lost_at, late_s)
        return link, session

    def _hear_refusal(self, refusal: Refused) -> None:
        policy, answer = self._plan.policy, refusal.answer
        if answer.status in (429, 503):
            policy.refused(answer.retry_ms, answer.ticket)
        elif answer.status in (401, 403):
            self._token = self._plan.token()
            policy.distrusted()
        else:
            policy.failed()
        self._turn()

    def _failed(self, why: Exception, began: float, *, silent: bool) -> None:
        lasted_s = time.monotonic() - began
        self._watcher.failed(f"{type(why).__name__}: {why}", lasted_s)
        if silent:
            self._plan.policy.silent(lasted_s * 1_000)
        else:
            self._plan.policy.failed()
        self._turn()

    def _greet(self, link: Link) -> ClientSession:
        session = self._reports.session()
        link.say(session.hello())
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        while session.welcome is None:
            if time.monotonic() > deadline:
                raise TimeoutError("no welcome")
            for text in link.hear(deadline):
                session.receive(text)
        return session

    def _drive_on(self, link: Link, session: ClientSession) -> None:
        """Serve one session, and the next one at once if a `goaway` names its time."""
        while True:
            self._begin(link, session)
            began = time.monotonic()
            try:
                self._serve(link, session)
            except (OSError, ProtocolViolation) as exc:
                self._end(link, exc, began)
                return
            # After a goaway, the next connection is made before this one is closed.
            self._lost_at = time.monotonic()
            self._turn()
            self._wait(self._plan.policy.next_delay_ms() / 1_000)
            following = self._knock()
            link.close()
            self._link = None
            if following is None:
                return
            link, session = following

    def _begin(self, link: Link, session: ClientSession) -> None:
        assert session.welcome is not None
        policy = self._plan.policy
        policy.opened()
        policy.told_first_retry(session.welcome.first_retry_ms)
        self._link = link
        self._reports.settle(session.acked, self._watcher.acked)

    def _end(self, link: Link, why: Exception, began: float) -> None:
        self._watcher.lost()
        self._lost_at = time.monotonic()
        link.cut()
        if isinstance(why, ClosedByGateway) and why.code == frames.CLOSE_CREDENTIAL:
            self._token = self._plan.token()
        self._plan.policy.closed((self._lost_at - began) * 1_000)
        self._link = None

    def _serve(self, link: Link, session: ClientSession) -> None:
        """Serve the session until the gateway sends a goaway.

        Raises:
            OSError, ProtocolViolation: the session is over.
        """
        reports = self._reports
        heard_at = time.monotonic()
        while True:
            reports.produce(time.monotonic())
            reports.send(link, session)
            texts = link.hear(min(reports.due_at, heard_at + _SILENCE_S))
            if texts:
                heard_at = time.monotonic()
            elif time.monotonic() > heard_at + _SILENCE_S:
                raise TimeoutError("silence")
            if any(self._take(session, text) for text in texts):
                return

    def _take(self, session: ClientSession, text: bytes) -> bool:
        """Take one frame. Whether it was a goaway."""
        frame = session.receive(text)
        if frame.ack is not UNSET:
            self._reports.settle(session.acked, self._watcher.acked)
        if frame.notice is not UNSET:
            self._plan.policy.told_first_retry(frame.notice.first_retry_ms)
        if frame.goaway is UNSET:
            return False
        self._sent_away(frame.goaway)
        return True

    def _sent_away(self, goaway: frames.Goaway) -> None:
        policy = self._plan.policy
        if isinstance(policy, ReconnectPolicy):
            policy.sent_away(goaway.retry_ms, goaway.ticket or None)
        else:
            policy.closed(_LONG_SESSION_MS)
