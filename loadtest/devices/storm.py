"""Devices of a storm: they knock until they are in, on one asyncio loop.

The devices are lean (bytes in, bytes out), so ten thousand of them fit beside the gateway they
storm. Their decisions are the policies of `policies.py`.
"""

import asyncio
import random
import ssl
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from loadtest.devices.connection import Connection
from loadtest.devices.policies import Policy
from loadtest.devices.tickets import is_dishonoured, late_of
from loadtest.devices.wire import Answer, first_retry_ms_of, handshake_request, hello, is_welcome

_CONNECT_TIMEOUT_S: Final = 30.0
_LONG_SESSION_MS: Final = 60_000
"""What a policy is told of a session that was lost: it lasted, so the next failure is the first."""


@dataclass(slots=True)
class StormLog:
    """What a storm did. Times in seconds since it began."""

    began: float = field(default_factory=monotonic)
    knocks: list[float] = field(default_factory=list)
    admissions: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    """From a device's first knock to its welcome."""
    refusals: Counter[str] = field(default_factory=Counter)
    lateness: list[float] = field(default_factory=list)
    dishonoured: int = 0
    """Tickets shown in their window and refused all the same."""
    failures: int = 0
    """Attempts without an answer: refused by the system, cut, timed out."""
    cut: int = 0
    """Sessions that the device did not end."""
    told_max_s: float = 0.0
    """The longest time that a device was told to wait."""

    def now(self) -> float:
        return monotonic() - self.began


class Account:
    """What one device has done, which is also written into the log of the storm."""

    def __init__(self, log: StormLog) -> None:
        self._log = log
        self._first_knock_s = 0.0
        self.knocks = 0

    def knocked(self, late_s: float | None) -> None:
        """A knock, so late for the slot of the ticket that is shown."""
        now = self._log.now()
        self._log.knocks.append(now)
        self.knocks += 1
        if self.knocks == 1:
            self._first_knock_s = now
        if late_s is not None:
            self._log.lateness.append(late_s)

    def refused(self, answer: Answer, *, dishonoured: bool) -> None:
        """
        Args:
            answer: of the gateway.
            dishonoured: whether the device showed a ticket that the gateway must honour.
        """
        self._log.refusals[answer.reason] += 1
        self._log.dishonoured += dishonoured
        if answer.retry_ms is not None:
            self._log.told_max_s = max(self._log.told_max_s, answer.retry_ms / 1000)

    def admitted(self) -> None:
        now = self._log.now()
        self._log.admissions.append(now)
        self._log.waits.append(now - self._first_knock_s)

    def failed(self) -> None:
        self._log.failures += 1

    def cut(self) -> None:
        self._log.cut += 1


@dataclass(slots=True)
class Route:
    """The gateways that a device tries in turn, on loopback."""

    ports: list[int]
    context: ssl.SSLContext | None = None
    """For TLS: what the device trusts."""

    @classmethod
    def shuffled(
        cls, ports: Sequence[int], rng: random.Random, context: ssl.SSLContext | None = None
    ) -> "Route":
        """A route that begins at random, so that a fleet spreads over the gateways."""
        mixed = list(ports)
        rng.shuffle(mixed)
        return cls(mixed, context)

    def turn(self) -> None:
        """Try the next one from now on."""
        self.ports.append(self.ports.pop(0))


class Visit:
    """What a device does with its sessions; this base class greets and holds them."""

    def greeting(self) -> bytes:
        """The hello of the next session, as a frame. This one says that nothing was sent before.

        The reference client says what it has sent. A client that does not costs a look-up in the
        stream at each new outbox, which is about a quarter of an admission's CPU.
        """
        return hello("storm", sent=0)

    def begun(self) -> None:
        """The device was welcomed."""

    def heard(self, text: bytes) -> None:
        """A frame of the gateway, the welcome included."""


class StormDevice:
    """One device: knocks when its policy says so until it is welcomed; then holds the session."""

    def __init__(
        self,
        name: str,
        token: str,
        route: Route,
        policy: Policy,
        log: StormLog,
        visit: Visit,
        *,
        comes_back: bool = False,
    ) -> None:
        """
        Args:
            name: of the device.
            token: its credential.
            route: where it knocks.
            policy: when it knocks.
            log: of the storm.
            visit: what it does in a session.
            comes_back: it hangs up as soon as it is in and knocks again: demand without end.
        """
        self.name = name
        self.token = token
        self.account = Account(log)
        self.connection: Connection | None = None
        """The session; None while the device is not in."""
        self._route = route
        self._policy = policy
        self._visit = visit
        self._comes_back = comes_back
        self._pending: asyncio.TimerHandle | asyncio.Task[None] | None = None
        """The next knock, or the one under way."""
        self._gone = False

    @property
    def inside(self) -> bool:
        return self.connection is not None

    def begin(self) -> None:
        """The connection is lost: knock when the policy says so."""
        self._knock_later(self._policy.next_delay_ms() / 1000)

    def stop(self) -> None:
        """End whatever goes on, and do not come back."""
        self._gone = True
        if self._pending is not None:
            self._pending.cancel()
        self.abort()

    def abort(self) -> None:
        """Cut the session, if there is one."""
        if self.connection is not None:
            self.connection.abort()

    def request(self) -> bytes:
        return handshake_request(self.token.encode(), self._policy.ticket)

    def greeting(self) -> bytes:
        return self._visit.greeting()

    def heard(self, connection: Connection, text: bytes) -> None:
        if is_welcome(text):
            self._welcomed(connection, text)
        self._visit.heard(text)

    def refused(self, response: bytes) -> None:
        answer = Answer(response)
        self.account.refused(answer, dishonoured=is_dishonoured(self._policy.ticket, answer.reason))
        self._route.turn()
        self._policy.refused(answer.retry_ms, answer.ticket)
        self.begin()

    def lost(self) -> None:
        """The session is gone, or the attempt came to nothing."""
        was_inside, self.connection = self.inside, None
        if self._gone:
            return
        if self._comes_back:
            self._knock_later(0.0)
        elif was_inside:
            self.account.cut()
            self._policy.closed(_LONG_SESSION_MS)
            self.begin()
        else:
            self._failed()

    def _welcomed(self, connection: Connection, text: bytes) -> None:
        self._policy.opened()
        first_retry_ms = first_retry_ms_of(text)
        if first_retry_ms is not None:
            self._policy.told_first_retry(first_retry_ms)
        self.account.admitted()
        if self._comes_back:
            connection.abort()
        else:
            self.connection = connection
        self._visit.begun()

    def _failed(self) -> None:
        if self._gone:
            return
        self.account.failed()
        self._policy.failed()
        self._route.turn()
        self.begin()

    def _knock_later(self, delay_s: float) -> None:
        # The loop's clock has whole milliseconds: one more, so that no device is early.
        wait_s = delay_s + 0.001 if delay_s > 0 else 0.0
        self._pending = asyncio.get_running_loop().call_later(wait_s, self._knock)

    def _knock(self) -> None:
        self.account.knocked(late_of(self._policy.ticket))
        self._pending = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        context = self._route.context
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await asyncio.get_running_loop().create_connection(
                    lambda: _Attempt(self),
                    "127.0.0.1",
                    self._route.ports[0],
                    ssl=context,
                    ssl_handshake_timeout=_CONNECT_TIMEOUT_S if context else None,
                )
        except (OSError, TimeoutError):
            self._failed()


class _Attempt(Connection):
    """One connection of a storm device."""

    def __init__(self, device: StormDevice) -> None:
        super().__init__()
        self._device = device
        self._answered = False

    def request(self) -> bytes:
        return self._device.request()

    def greeting(self) -> bytes:
        return self._device.greeting()

    def heard(self, payload: bytes) -> None:
        self._device.heard(self, payload)

    def refused(self, response: bytes) -> None:
        self._answered = True
        self.abort()
        self._device.refused(response)

    def lost(self) -> None:
        if not self._answered:
            self._device.lost()
