"""A soak: devices that connect, flap, offend and leave at random, and the gateway's memory.

    python -m loadtest.lab.soak [--minutes M] [--devices N] [--tls]

Each device is a task that does one thing after another, at random: it stays and sends, hangs up in
every way there is, knocks with what is worth nothing, breaks the framing or the contract. After the
warm-up memory must be flat: the slope of resident memory is printed, and its bound is the verdict.
"""

import argparse
import asyncio
import contextlib
import random
import ssl
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console

from loadtest.devices.credentials import Issuer
from loadtest.devices.wire import handshake_request, masked_frame
from loadtest.errors import LoadtestError
from loadtest.servers.certificates import make_certificate
from loadtest.servers.targets import GatewayServer, require_descriptors

SLOPE_BYTES_MAX: Final = 1_048_576
"""In ten minutes, after the warm-up."""
_WARM_UP: Final = 0.25
"""Share of the run that is warm-up: five minutes of twenty."""
_SAMPLE_S: Final = 5.0
_PATIENCE_S: Final = 30.0
_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(slots=True)
class Soak:
    """What all devices share."""

    port: int
    issuer: Issuer
    context: ssl.SSLContext | None
    until: float
    did: Counter[str] = field(default_factory=Counter)


class Device:
    """One device, doing one thing after another."""

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
            (4, self._ask_for_nothing),
            (4, self._be_told_by_close),
            (4, self._talk_early),
        )

    async def run(self) -> None:
        """Until the soak is over."""
        weights, acts = zip(*self._acts, strict=True)
        await asyncio.sleep(self._rng.uniform(0, min(20.0, self._soak.until - time.monotonic())))
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
        writer.write(request)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _PATIENCE_S)
        status = head[9:12].decode()
        self._soak.did[status] += 1
        self._ticket = None
        if status == "101":
            return True
        for line in head.split(b"\r\n"):
            if line.startswith(b"Tidegate-Ticket: "):
                self._ticket = line[17:].decode()
            elif line.startswith(b"Tidegate-Retry-After-Ms: "):
                await asyncio.sleep(min(5.0, int(line[25:]) / 1_000))
        return False

    @property
    def _request(self) -> bytes:
        return handshake_request(self._token, self._ticket)

    async def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if not await self._knock(reader, writer, self._request):
            return False
        self._visits += 1
        hello = b'{"hello":{"outbox":"s%d","oldest":1}}' % self._visits
        writer.write(masked_frame(1, hello))
        await asyncio.wait_for(reader.readuntil(b"keepalive_ms"), _PATIENCE_S)
        return True

    async def _stay(self) -> None:
        """A session of some seconds that sends a few messages and ends in one way or another."""
        async with self._connection() as (reader, writer):
            if not await self._enter(reader, writer):
                return
            for seq in range(1, self._rng.randrange(2, 12)):
                writer.write(masked_frame(1, b'{"seq":%d,"type":"soak","data":{"n":1}}' % seq))
                await asyncio.wait_for(reader.readuntil(b'{"ack":%d,' % seq), _PATIENCE_S)
                await asyncio.sleep(self._rng.expovariate(1.0))
            self._soak.did["stayed"] += 1
            if self._rng.random() < 0.5:
                writer.write(masked_frame(8, b"\x03\xe8"))

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
        offences = (b"{", b"{}", b'{"seq":9,"type":"t","data":1}', b"[" * 99, b'{"ack":1}')
        async with self._connection() as (reader, writer):
            if await self._enter(reader, writer):
                writer.write(masked_frame(1, self._rng.choice(offences)))
                await asyncio.wait_for(reader.read(), _PATIENCE_S)
                self._soak.did["offended"] += 1

    async def _break_framing(self) -> None:
        rubbish = (b"\x81\x05hello", b"\xff\xff" * 9, b"\x01\x81abcd{", b"\x81\xfe\x10\x00abcdxx")
        async with self._connection() as (reader, writer):
            if await self._enter(reader, writer):
                writer.write(self._rng.choice(rubbish))
                await asyncio.sleep(0.1)

    async def _forge(self) -> None:
        forged = self._soak.issuer.forged(self._name).encode()
        async with self._connection() as (reader, writer):
            await self._knock(reader, writer, handshake_request(forged))

    async def _ask_for_nothing(self) -> None:
        heads = (b"GET / HTTP/1.1\r\n\r\n", b"\x00\r\n\r\n", b"GET //[ HTTP/1.1\r\nHost: x\r\n\r\n")
        async with self._connection() as (reader, writer):
            await self._knock(reader, writer, self._rng.choice(heads))

    async def _be_told_by_close(self) -> None:
        forged = handshake_request(self._soak.issuer.forged(self._name).encode())
        async with self._connection() as (reader, writer):
            by_close = forged.replace(b"/v1/device", b"/v1/device?refusal=close", 1)
            if await self._knock(reader, writer, by_close):
                await asyncio.wait_for(reader.read(), _PATIENCE_S)

    async def _talk_early(self) -> None:
        async with self._connection() as (_reader, writer):
            writer.write(self._request)
            writer.write(b"x" * self._rng.randrange(2_000))
            await asyncio.sleep(0.1)


def slope_in_ten_minutes(samples: Sequence[tuple[float, float]]) -> float:
    """Of a straight line through (seconds, bytes), in bytes a ten minutes."""
    if len(samples) < 3:  # a line through two points says nothing
        return 0.0
    times, values = zip(*samples, strict=True)
    return statistics.linear_regression(times, values).slope * 600


async def _soak(gateway: GatewayServer, soak: Soak, count: int, seconds: float) -> list[float]:
    """Run the devices, and print memory each minute.

    Returns:
        Slope after the warm-up, of this run in bytes a ten minutes, and the memory at its ends.
    """
    console = Console()
    began = time.monotonic()
    devices = [Device(soak, f"soak-{n}", random.Random(n)) for n in range(count)]
    running = [asyncio.create_task(device.run()) for device in devices]
    samples: list[tuple[float, float]] = []
    said = -1
    while (now := time.monotonic() - began) < seconds:
        samples.append((now, float(gateway.memory_bytes())))
        minute = int(now // 60)
        if minute > said:
            said = minute
            did = ", ".join(f"{name} {times:,}" for name, times in sorted(soak.did.items()))
            console.print(f"  {said:>3} min  {samples[-1][1] / 1_048_576:7.1f} MiB  {did}")
        await asyncio.sleep(_SAMPLE_S)
    console.print(f"  in all  {', '.join(f'{n} {c:,}' for n, c in sorted(soak.did.items()))}")
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    after = [sample for sample in samples if sample[0] >= seconds * _WARM_UP]
    return [slope_in_ten_minutes(after), after[0][1], after[-1][1]]


def run(minutes: float, devices: int, *, tls: bool) -> int:
    """The soak, on a gateway of our own.

    Returns:
        1 if memory was not flat, else 0.
    """
    require_descriptors(devices * 2 + 500)
    with tempfile.TemporaryDirectory(prefix="tidegate-soak-") as directory:
        base = Path(directory)
        issuer = Issuer(base / "jwks.json")
        settings: dict[str, object] = {
            "log__level": "error",
            "admission__rate_per_s": 400,
            "admission__device_knocks_per_s": 10,
            "limits__head_timeout_ms": 2_000,
        }
        context = None
        if tls:
            files = make_certificate(base / "tls")
            context = files.client_context()
            settings |= {"tls__cert_file": files.cert, "tls__key_file": files.key}
        with GatewayServer(base / "gateway", jwks_file=issuer.jwks_file, **settings) as gateway:
            soak = Soak(gateway.port, issuer, context, time.monotonic() + minutes * 60)
            slope, first, last = asyncio.run(_soak(gateway, soak, devices, minutes * 60))
    flat = slope < SLOPE_BYTES_MAX
    print(
        f"memory after the warm-up: {first / 1_048_576:.1f} to {last / 1_048_576:.1f} MiB, slope "
        f"{slope / 1_048_576:+.2f} MiB in ten minutes (wanted: under 1): "
        f"{'flat' if flat else 'MISSED'}"
    )
    return 0 if flat else 1


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Memory under random connections.")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--devices", type=int, default=2_000)
    parser.add_argument("--tls", action="store_true")
    options = parser.parse_args()
    try:
        sys.exit(run(options.minutes, options.devices, tls=options.tls))
    except LoadtestError as exc:
        sys.exit(f"tidegate: {exc}")


if __name__ == "__main__":
    main()
