"""The benchmarks of backpressure: `python -m loadtest.benches.backpressure [SECTION...]`.

make bench-backpressure
make bench-backpressure ARGS="outage --seconds 60"
"""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Callable
from functools import partial
from time import monotonic
from typing import Final, Self, cast

import nats

from loadtest.benches.flood import section_flood
from loadtest.benches.rig import Bench, Meter, run_sections
from loadtest.benches.sections import main_of
from loadtest.checker import Checker, read_stream
from loadtest.devices.steady import SteadyDevices
from loadtest.devices.storm import StormLog
from loadtest.devices.wire import handshake_request, masked_frame
from loadtest.devices.writers import Writer, WriterPlan
from loadtest.errors import TargetError
from loadtest.servers.targets import GatewayServer, NatsServer, require_descriptors

_MIB: Final = 2**20
_NOBODY_TOLD_OFF: Final = {"admission__device_knock_burst": 10_000}
_SETTLE_TIMEOUT_S: Final = 180.0


class Fleet:
    """Devices that produce at a steady pace, whatever becomes of what they produce."""

    def __init__(self, bench: Bench, gateway: GatewayServer, count: int) -> None:
        self.log = StormLog()
        self.devices = [
            Writer(
                name, bench.issuer.token(name), [gateway.port], plan=WriterPlan(messages=0),
                log=self.log, on_done=lambda: None, rng=random.Random(number),
            )
            for number, name in enumerate(f"veh-{n}" for n in range(count))
        ]  # fmt: skip

    @property
    def produced(self) -> int:
        return sum(device.wanted for device in self.devices)

    @property
    def acked(self) -> int:
        return sum(device.acked for device in self.devices)

    async def connect(self) -> None:
        for number, device in enumerate(self.devices):
            device.begin()
            if number % 50 == 0:
                await asyncio.sleep(0.02)
        await _until(lambda: all(device.inside for device in self.devices), "connected")

    @contextlib.asynccontextmanager
    async def producing(self, rate_per_s: float) -> AsyncIterator[None]:
        """So many messages a second, of all devices in turn."""
        task = asyncio.create_task(self._produce(rate_per_s))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _produce(self, rate_per_s: float) -> None:
        began, made = monotonic(), 0
        while True:
            while made < (monotonic() - began) * rate_per_s:
                self.devices[made % len(self.devices)].produce(1)
                made += 1
            await asyncio.sleep(0.01)

    async def all_acked(self) -> None:
        await _until(lambda: self.acked >= self.produced, "acknowledged")

    def stop(self) -> None:
        for device in self.devices:
            device.stop()


async def _until(condition: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(_SETTLE_TIMEOUT_S):
            while not condition():  # noqa: ASYNC110  # of what others count
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise TargetError(f"not all {what} in {_SETTLE_TIMEOUT_S:.0f} s") from None


class Watch:
    """Memory of the gateway and acknowledgements by the second, sampled until it is left."""

    def __init__(self, gateway: GatewayServer, fleet: Fleet) -> None:
        self._gateway = gateway
        self._fleet = fleet
        self.memory_max = 0
        self.rates: list[float] = []

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        last, at = self._fleet.acked, monotonic()
        while True:
            await asyncio.sleep(1)
            self.memory_max = max(self.memory_max, self._gateway.memory_bytes())
            acked, now = self._fleet.acked, monotonic()
            self.rates.append((acked - last) / (now - at))
            last, at = acked, now


async def section_outage(bench: Bench) -> None:
    """JetStream is away for a minute while 5,000 devices go on producing."""
    count, away_s = 5_000, max(60.0, bench.seconds)
    budget = 32 * _MIB
    require_descriptors(count + 500)
    with NatsServer(bench.directory / "nats") as server, bench.gateway(
        nats__urls=server.url,
        stream__durability="stream",
        session__credit_budget_bytes=budget,
        publish__pending_bytes=budget,
        **_NOBODY_TOLD_OFF,
    ) as gateway:  # fmt: skip
        fleet = Fleet(bench, gateway, count)
        await fleet.connect()
        async with Watch(gateway, fleet) as watch:
            async with fleet.producing(count):
                await asyncio.sleep(5)
                before = gateway.memory_bytes()
                watch.memory_max = before
                await asyncio.to_thread(server.stop)
                await asyncio.sleep(away_s)
                waiting = fleet.produced - fleet.acked
                await asyncio.to_thread(server.start)
                watch.rates.clear()
                began = monotonic()
                await _until(lambda: fleet.produced - fleet.acked < count, "caught up")
                recovered_s = monotonic() - began
                await asyncio.sleep(2)
            await fleet.all_acked()
        # What the path carries when every device has a full outbox, and nothing is wrong.
        async with Watch(gateway, fleet) as full:
            for device in fleet.devices:
                device.produce(100)
            await fleet.all_acked()
        sustainable = max(full.rates)
        checker = Checker()
        async for device_name, seq, data in read_stream(server.url):
            checker.take(device_name, seq, data)
        checker.finish({device.name: device.acked for device in fleet.devices})
        fleet.stop()
    grown = watch.memory_max - before
    traffic = max(watch.rates) / sustainable
    bench.report.table(
        f"JetStream away for {away_s:.0f} s, {count:,} devices with 1 msg/s each",
        ("", ""),
        [
            ("waiting in the devices' outboxes when it came back", f"{waiting:,}"),
            ("caught up after, s", f"{recovered_s:.1f}"),
            ("sustainable / peak of the recovery, msg/s",
             f"{sustainable:,.0f} / {max(watch.rates):,.0f}"),
            ("gateway memory before / at most, MiB",
             f"{before / _MIB:.0f} / {watch.memory_max / _MIB:.0f}"),
            ("disconnects", f"{fleet.log.cut}"),
            *((name, f"{found.count:,}") for name, found in checker.findings()),
        ],
    )  # fmt: skip
    cut = fleet.log.cut
    bench.report.verdict("disconnects", cut, "0", ok=cut == 0)
    bench.report.verdict(
        "memory growth over the budget", grown / budget, "at most 1", ok=grown <= budget
    )
    bench.report.verdict(
        "recovery traffic over sustainable", traffic, "at most 1.5", ok=traffic <= 1.5
    )
    bench.report.verdict("everything stored", float(checker.clean), "1", ok=checker.clean)


async def section_chatty(bench: Bench) -> None:
    """1,000 quiet devices, with and without one that sends as fast as it can, in turns."""
    for durability in ("fsync", "stream"):
        await _chatty(bench, durability)


async def _chatty(bench: Bench, durability: str) -> None:
    phase_s, turns = max(8.0, bench.seconds), 3
    with bench.gateway(stream__durability=durability, **_NOBODY_TOLD_OFF) as gateway:
        tokens = [(f"quiet-{n}", bench.issuer.token(f"quiet-{n}")) for n in range(1_000)]
        async with SteadyDevices(gateway.port, tokens, rate_per_s=500, connect_per_s=500) as steady:
            meter = Meter(0)
            chatty = bench.gateway_devices(1, meter, "chatty")
            seen: dict[bool, list[float]] = {False: [], True: []}
            async with chatty.connected(gateway.port) as (device,):
                for turn in range(2 * turns):
                    talks = turn % 2 == 1
                    meter.window = 10_000 if talks else 0
                    if talks:
                        device.top_up()
                    await asyncio.sleep(1)
                    await steady.seen()
                    meter.reset()
                    await asyncio.sleep(phase_s)
                    seen[talks].append((await steady.seen()).p99_ms)
    quiet, beside = sorted(seen[False])[turns // 2], sorted(seen[True])[turns // 2]
    bench.report.table(
        f"{durability}: 1,000 quiet devices beside a chatty one, {turns} turns of {phase_s:.0f} s",
        ("", "ack p99 of the quiet, ms"),
        [
            ("alone", " ".join(f"{value:.1f}" for value in seen[False])),
            ("beside the chatty one", " ".join(f"{value:.1f}" for value in seen[True])),
            ("messages a second of the chatty one", f"{meter.messages / phase_s:,.0f}"),
        ],
    )
    ratio = beside / quiet
    what = f"{durability}: quiet ack p99, beside / alone"
    bench.report.verdict(what, ratio, "at most 1.5", ok=ratio <= 1.5)


class Deaf(asyncio.Protocol):
    """Connects, greets, and never reads again."""

    def __init__(self, token: str) -> None:
        self._token = token
        self.transport: asyncio.Transport | None = None
        self.ready = False
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(handshake_request(self._token.encode()))
        self.transport.write(masked_frame(1, b'{"hello":{"outbox":"d","oldest":1}}'))

    def data_received(self, data: bytes) -> None:
        if b'{"welcome"' in data and self.transport is not None:
            self.transport.pause_reading()
            self.ready = True

    def connection_lost(self, _exc: Exception | None) -> None:
        self.lost = True


async def _deaf(port: int, token: str) -> Deaf:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, ("127.0.0.1", port))
    _transport, device = await loop.create_connection(lambda: Deaf(token), sock=connection)
    return device


async def section_deaf(bench: Bench) -> None:
    """10,000 connections stop reading while commands for them keep coming."""
    count, size, buffer_bytes, rounds = 10_000, 32_768, 32_768, 6
    require_descriptors(count + 500)
    with NatsServer(bench.directory / "nats") as server, bench.gateway(
        nats__urls=server.url,
        stream__durability="stream",
        limits__write_buffer_bytes=buffer_bytes,
        limits__slow_reader_timeout_ms=30_000,
        **_NOBODY_TOLD_OFF,
    ) as gateway:  # fmt: skip
        devices: list[Deaf] = []
        for start in range(0, count, 50):
            devices += await asyncio.gather(
                *(
                    _deaf(gateway.port, bench.issuer.token(f"deaf-{n}"))
                    for n in range(start, start + 50)
                )
            )
        await _until(lambda: all(device.ready for device in devices), "welcomed")
        before = gateway.memory_bytes()
        client = await nats.connect(server.url)
        command = b'{"type":"t","data":"%b"}' % (b"x" * size)
        most = before
        for _round in range(rounds):
            for number in range(count):
                await client.publish(f"commands.default.deaf-{number}", command)
                if number % 100 == 0:
                    await client.flush()
                    most = max(most, gateway.memory_bytes())
        await client.close()
        outcomes = _commands(gateway)
        await _until(
            lambda: gateway.status()["connections"] <= count // 100, "slow readers dropped"
        )
        after = gateway.memory_bytes()
        for device in devices:
            if device.transport is not None:
                device.transport.abort()
    # One frame may pass the mark before the buffer counts as full.
    bound = count * (buffer_bytes + size)
    bench.report.table(
        f"{count:,} connections that stop reading, {rounds} commands of {size:,} bytes each",
        ("", ""),
        [
            ("commands written / held back", outcomes),
            ("gateway memory before / at most / after, MiB",
             f"{before / _MIB:.0f} / {most / _MIB:.0f} / {after / _MIB:.0f}"),
            ("configured bound on what waits for them, MiB", f"{bound / _MIB:.0f}"),
        ],
    )  # fmt: skip
    share = (most - before) / bound
    bench.report.verdict("memory growth over the bound", share, "at most 1", ok=share <= 1)


def _commands(gateway: GatewayServer) -> str:
    counts = [
        gateway.metric(f'tidegate_commands_total{{outcome="{outcome}"}}')
        for outcome in ("sent", "congested")
    ]
    return " / ".join(f"{count:,.0f}" for count in counts)


SECTIONS: Final = {
    "outage": section_outage,
    "chatty": section_chatty,
    "deaf": section_deaf,
    "flood": section_flood,
}


if __name__ == "__main__":
    run = partial(run_sections, SECTIONS)
    main_of("backpressure", "Benchmarks of backpressure.", SECTIONS, run)
