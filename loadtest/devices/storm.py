"""A storm on the wire: devices that knock until they are in, on one asyncio loop.

The devices are lean (bytes in, bytes out) and their decisions are the policies of `policies.py`, so
ten thousand of them fit beside the gateway they storm.
"""

import asyncio
import random
import re
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Final, cast

from loadtest.devices.policies import Policy
from loadtest.devices.wire import frames_in, handshake_request, masked_frame

_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3})")
_RETRY: Final = re.compile(rb"Tidegate-Retry-After-Ms: (\d+)")
_TICKET: Final = re.compile(rb"Tidegate-Ticket: ([\w-]+)")
_REASON: Final = re.compile(rb'"reason":"(\w+)"')
_FIRST_RETRY: Final = re.compile(rb'"first_retry_ms":(\d+)')
_CONNECT_TIMEOUT_S: Final = 30.0


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
    """Tickets shown in their slot and refused all the same."""
    failures: int = 0
    """Attempts without an answer: refused by the system, cut, timed out."""
    cut: int = 0
    """Sessions that ended although nobody here wanted them to."""
    told_max_s: float = 0.0
    """The longest time that a device was told to wait."""

    def now(self) -> float:
        return monotonic() - self.began


class StormDevice:
    """One device: knocks as its policy says, until it is welcomed; then holds the session."""

    def __init__(
        self, name: str, token: str, ports: Sequence[int], policy: Policy, log: StormLog,
        on_in: Callable[[], None], rng: random.Random, context: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self.token = token
        self._ports = list(ports)
        rng.shuffle(self._ports)
        self._policy = policy
        self._log = log
        self._on_in = on_in
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._first_knock = 0.0
        self._gone = False
        self._due = 0.0
        self.knocks = 0
        self.inside = False
        self.comes_back = False
        """Hang up as soon as it is in and knock again: demand without end."""
        self.transport: asyncio.Transport | None = None

    def begin(self) -> None:
        """The connection is lost: knock when the policy says so."""
        self._schedule()

    def stop(self) -> None:
        self._gone = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        if self.transport is not None:
            self.transport.abort()

    def _schedule(self) -> None:
        self._due = monotonic() + self._policy.next_delay_ms() / 1000
        # The loop's clock has whole milliseconds: one more, never to be early.
        delay_s = self._due - monotonic()
        self._timer = self._loop.call_later(delay_s + 0.001 if delay_s > 0 else 0, self._knock)

    def _knock(self) -> None:
        self.knocks += 1
        now = self._log.now()
        self._log.knocks.append(now)
        if self.knocks == 1:
            self._first_knock = now
        if self._policy.ticket is not None:
            self._log.lateness.append(monotonic() - self._due)
        self._task = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await self._loop.create_connection(
                    lambda: _Attempt(self),
                    "127.0.0.1",
                    self._ports[0],
                    ssl=self._context,
                    ssl_handshake_timeout=_CONNECT_TIMEOUT_S if self._context else None,
                )
        except (OSError, TimeoutError):
            self.failed()

    @property
    def request(self) -> bytes:
        return handshake_request(self.token.encode(), self._policy.ticket)

    def greeting(self) -> bytes:
        """The hello, as a frame. Like the reference client it says that it has sent nothing.

        A client that leaves out `sent` costs a look-up in the stream at each new outbox, which is
        about a quarter of an admission's CPU.
        """
        return masked_frame(1, b'{"hello":{"outbox":"storm","oldest":1,"sent":0}}')

    def heard(self, text: bytes) -> None:
        """A frame of the gateway."""

    def failed(self) -> None:
        """No answer."""
        if self._gone:
            return
        self._log.failures += 1
        self._policy.failed()
        self._ports.append(self._ports.pop(0))
        self._schedule()

    def refused(self, head: bytes) -> None:
        retry, ticket, reason = _RETRY.search(head), _TICKET.search(head), _REASON.search(head)
        shown = self._policy.ticket
        why = reason[1].decode() if reason is not None else "other"
        self._log.refusals[why] += 1
        if shown is not None and why == "rate":
            self._log.dishonoured += 1
        self._ports.append(self._ports.pop(0))
        if retry is not None:
            self._log.told_max_s = max(self._log.told_max_s, int(retry[1]) / 1000)
        self._policy.refused(
            int(retry[1]) if retry is not None else None,
            ticket[1].decode() if ticket is not None else None,
        )
        self._schedule()

    def welcomed(self, transport: asyncio.Transport, text: bytes) -> None:
        self.transport = transport
        self._policy.opened()
        told = _FIRST_RETRY.search(text)
        if told is not None:
            self._policy.told_first_retry(int(told[1]))
        self.inside = True
        now = self._log.now()
        self._log.admissions.append(now)
        self._log.waits.append(now - self._first_knock)
        self._on_in()
        if self.comes_back:
            self.inside = False
            transport.abort()

    def lost(self) -> None:
        """The session is gone, or the attempt came to nothing."""
        was_inside, self.inside = self.inside, False
        self.transport = None
        if self._gone:
            return
        if self.comes_back:
            self._due = monotonic()
            self._timer = self._loop.call_later(0, self._knock)
        elif was_inside:
            self._log.cut += 1
            self._policy.closed(60_000)
            self._schedule()
        else:
            self.failed()


class _Attempt(asyncio.Protocol):
    """One connection of a storm device."""

    __slots__ = ("_answered", "_buffer", "_device", "_transport", "_upgraded")

    def __init__(self, device: StormDevice) -> None:
        self._device = device
        self._buffer = b""
        self._upgraded = False
        self._answered = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._device.request)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        data = self._buffer + data if self._buffer else data
        if not self._upgraded:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = data
                return
            status = _STATUS.match(data)
            if status is None or status[1] != b"101":
                self._answered = True
                self._transport.abort()
                self._device.refused(data)
                return
            self._upgraded = True
            self._transport.write(self._device.greeting())
            data = data[end + 4 :]
        position = 0
        for opcode, payload, position in frames_in(data):  # noqa: B007  # the last one is used
            if opcode == 9:  # ping
                self._transport.write(masked_frame(10, payload))
            else:
                if payload.startswith(b'{"welcome"'):
                    self._device.welcomed(self._transport, payload)
                self._device.heard(payload)
        self._buffer = data[position:]

    def connection_lost(self, _exc: Exception | None) -> None:
        if not self._answered:
            self._device.lost()


async def storm(
    devices: Sequence[StormDevice], everybody_in: asyncio.Event, timeout_s: float
) -> bool:
    """Let all of them lose their connections at once.

    Returns:
        Whether everybody was in before the time was up.
    """
    for device in devices:
        device.begin()
    try:
        await asyncio.wait_for(everybody_in.wait(), timeout_s)
    except TimeoutError:
        return False
    return True
