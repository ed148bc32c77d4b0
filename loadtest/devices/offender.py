"""A device that behaves at random: it stays, flaps, offends, breaks the framing, shows forgeries.

It writes bytes on an asyncio stream of its own instead of `connection.py`, because most of what it
does is what a connection never does: half a request, rubbish after the handshake, silence.
"""

import asyncio
import contextlib
import random
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from loadtest.devices.credentials import Issuer
from loadtest.devices.wire import CLOSE, TEXT, Answer, handshake_request, hello, masked_frame

_SILENT_SHARE: Final = 0.1
_PATIENCE_S: Final = 30.0
_BEGIN_WITHIN_S: Final = 20.0
_RETRY_MAX_S: Final = 5.0
_OFFENCES: Final = (b"{", b"{}", b'{"seq":9,"type":"t","data":1}', b"[" * 99, b'{"ack":1}')
_RUBBISH: Final = (b"\x81\x05hello", b"\xff\xff" * 9, b"\x01\x81abcd{", b"\x81\xfe\x10\x00abcdxx")
_HEADS: Final = (
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x00\r\n\r\n",
    b"GET //[ HTTP/1.1\r\nHost: x\r\n\r\n",
)
_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(slots=True)
class Soak:
    """What all offenders of a run share."""

    port: int
    issuer: Issuer
    context: ssl.SSLContext | None
    until: float
    """The moment, on the monotonic clock, at which they end."""
    did: Counter[str] = field(default_factory=Counter)


class Offender:
    """One device, which does one thing after another."""

    def __init__(self, soak: Soak, name: str, rng: random.Random) -> None:
        self._soak = soak
        self._name = name
        self._rng = rng
        self._token = soak.issuer.token(name, lifetime_s=7_200).encode()
        self._ticket: str | None = None
        self._visits = 0
        self._acts: Sequence[tuple[int, Callable[[], Awaitable[None]]]] = (
            (40, self._stay),
            (20, self._flap),
            (8, self._be_silent),
            (8, self._offend),
            (6, self._break_framing),
            (6, self._forge),
            (4, self._ask_for_another_page),
            (4, self._be_refused_by_close),
            (4, self._talk_early),
        )

    async def run(self) -> None:
        """Run until the soak is over."""
        weights, acts = zip(*self._acts, strict=True)
        left_s = self._soak.until - time.monotonic()
        await asyncio.sleep(self._rng.uniform(0, min(_BEGIN_WITHIN_S, left_s)))
        while time.monotonic() < self._soak.until:
            act = self._rng.choices(acts, weights)[0]
            try:
                async with asyncio.timeout(_PATIENCE_S + 60):
                    await act()
            except (OSError, EOFError, asyncio.LimitOverrunError, TimeoutError):
                self._soak.did["cut"] += 1
            await asyncio.sleep(self._rng.uniform(0, 2))

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[_Streams]:
        soak = self._soak
        name = "localhost" if soak.context is not None else None
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", soak.port, ssl=soak.context, server_hostname=name
        )
        try:
            yield reader, writer
        finally:
            if self._rng.random() < 0.5:
                writer.transport.abort()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _knock(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
    ) -> bool:
        """Knock, and wait as a refusal says, up to a limit. Whether the device is admitted."""
        writer.write(request)
        async with asyncio.timeout(_PATIENCE_S):
            head = await reader.readuntil(b"\r\n\r\n")
        answer = Answer(head)
        self._soak.did[str(answer.status)] += 1
        self._ticket = answer.ticket
        if answer.status == 101:
            return True
        if answer.retry_ms is not None:
            await asyncio.sleep(min(_RETRY_MAX_S, answer.retry_ms / 1_000))
        return False

    @property
    def _request(self) -> bytes:
        return handshake_request(self._token, self._ticket)

    async def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if not await self._knock(reader, writer, self._request):
            return False
        self._visits += 1
        # A new outbox, which has sent nothing. One in ten does not say so and is looked up.
        sent = None if self._rng.random() < _SILENT_SHARE else 0
        writer.write(hello(f"s{self._visits}", sent=sent))
        async with asyncio.timeout(_PATIENCE_S):
            await reader.readuntil(b"keepalive_ms")
        return True

    async def _stay(self) -> None:
        """A session of some seconds that sends a few messages and ends in one way or another."""
        async with self._connection() as (reader, writer):
            if not await self._enter(reader, writer):
                return
            for seq in range(1, self._rng.randrange(2, 12)):
                writer.write(masked_frame(TEXT, b'{"seq":%d,"type":"soak","data":{"n":1}}' % seq))
                async with asyncio.timeout(_PATIENCE_S):
                    await reader.readuntil(b'{"ack":%d,' % seq)
                await asyncio.sleep(self._rng.expovariate(1.0))
            self._soak.did["stayed"] += 1
            if self._rng.random() < 0.5:
                writer.write(masked_frame(CLOSE, b"\x03\xe8"))

    async def _flap(self) -> None:
        for _ in range(self._rng.randrange(1, 4)):
            async with self._connection() as (reader, writer):
                await self._enter(reader, writer)
        self._soak.did["flapped"] += 1

    async def _be_silent(self) -> None:
        async with self._connection() as (_reader, writer):
            writer.write(self._request[: self._rng.randrange(200)])
            await asyncio.sleep(self._rng.uniform(0, 8))

    async def _offend(self) -> None:
        async with self._connection() as (reader, writer):
            if await self._enter(reader, writer):
                writer.write(masked_frame(TEXT, self._rng.choice(_OFFENCES)))
                async with asyncio.timeout(_PATIENCE_S):
                    await reader.read()
                self._soak.did["offended"] += 1

    async def _break_framing(self) -> None:
        async with self._connection() as (reader, writer):
            if await self._enter(reader, writer):
                writer.write(self._rng.choice(_RUBBISH))
                await asyncio.sleep(0.1)

    async def _forge(self) -> None:
        forged = self._soak.issuer.forged(self._name).encode()
        async with self._connection() as (reader, writer):
            await self._knock(reader, writer, handshake_request(forged))

    async def _ask_for_another_page(self) -> None:
        async with self._connection() as (reader, writer):
            await self._knock(reader, writer, self._rng.choice(_HEADS))

    async def _be_refused_by_close(self) -> None:
        forged = handshake_request(self._soak.issuer.forged(self._name).encode())
        async with self._connection() as (reader, writer):
            by_close = forged.replace(b"/v1/device", b"/v1/device?refusal=close", 1)
            if await self._knock(reader, writer, by_close):
                async with asyncio.timeout(_PATIENCE_S):
                    await reader.read()

    async def _talk_early(self) -> None:
        async with self._connection() as (_reader, writer):
            writer.write(self._request)
            writer.write(b"x" * self._rng.randrange(2_000))
            await asyncio.sleep(0.1)
