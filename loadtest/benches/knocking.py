"""Knocks without a device behind them: as many as are answered, or so many a second."""

import asyncio
import socket
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

from loadtest.devices.pace import at_rate

_AT_ONCE: Final = 64
_ANSWER_S: Final = 5.0
_ANSWERS: Final = (b"HTTP/1.1 503", b"HTTP/1.1 101")
"""Refused, and admitted: a gateway that refuses admits one device a second all the same."""


@dataclass(slots=True)
class Offered:
    """What became of knocks that came at a rate."""

    offered_per_s: float = 0.0
    unanswered: int = 0
    waits_s: list[float] = field(default_factory=list)

    @property
    def answered(self) -> int:
        return len(self.waits_s)

    @property
    def p99_ms(self) -> float:
        if len(self.waits_s) < 2:
            return 0.0
        return statistics.quantiles(self.waits_s, n=100)[98] * 1000


async def _knock(port: int, request: bytes, seen: Offered) -> None:
    loop, began = asyncio.get_running_loop(), perf_counter()
    with socket.socket() as connection:
        connection.setblocking(False)
        try:
            async with asyncio.timeout(_ANSWER_S):
                await loop.sock_connect(connection, ("127.0.0.1", port))
                await loop.sock_sendall(connection, request)
                answer = await loop.sock_recv(connection, 4_096)
        except (OSError, TimeoutError):
            answer = b""
    if answer.startswith(_ANSWERS):
        seen.waits_s.append(perf_counter() - began)
    else:
        seen.unanswered += 1


async def refused_per_s(port: int, requests: Sequence[bytes], seconds: float) -> float:
    """The knocks a second that a gateway refuses if so many as it answers are made."""
    seen = Offered()
    until = perf_counter() + seconds

    async def one_after_another(first: int) -> None:
        number = first
        while perf_counter() < until:
            await _knock(port, requests[number % len(requests)], seen)
            number += _AT_ONCE

    await asyncio.gather(*(one_after_another(first) for first in range(_AT_ONCE)))
    return seen.answered / seconds


async def offered(
    port: int, requests: Sequence[bytes], rate_per_s: float, seconds: float
) -> Offered:
    """Knock at that rate, however long the answers take."""
    seen = Offered()
    knocks: set[asyncio.Task[None]] = set()
    sent = 0

    def send(number: int) -> None:
        nonlocal sent
        knock = asyncio.create_task(_knock(port, requests[number % len(requests)], seen))
        knocks.add(knock)
        knock.add_done_callback(knocks.discard)
        sent = number + 1

    began = perf_counter()
    sending = asyncio.create_task(at_rate(rate_per_s, send))
    await asyncio.sleep(seconds)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    seen.offered_per_s = sent / (perf_counter() - began)
    await asyncio.gather(*knocks)
    return seen
