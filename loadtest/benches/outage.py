"""JetStream is away for a minute while devices go on producing."""

import asyncio
from dataclasses import dataclass
from time import monotonic
from typing import Final, Self

from loadtest.benches.rig import NO_KNOCK_LIMIT, Bench
from loadtest.checker import Checker, checked
from loadtest.devices.limits import require_descriptors
from loadtest.devices.pace import at_rate
from loadtest.devices.writers import WriterPlan, Writers
from loadtest.servers.backends import NatsServer
from loadtest.servers.gateway import GatewayServer
from loadtest.waiting import until

_MIB: Final = 2**20
_COUNT: Final = 5_000
_BUDGET_BYTES: Final = 32 * _MIB
_SETTLE_TIMEOUT_S: Final = 180.0


class Watch:
    """Memory of the gateway and acknowledgements by the second, sampled until it is left."""

    def __init__(self, gateway: GatewayServer, writers: Writers) -> None:
        self._gateway = gateway
        self._writers = writers
        self._task: asyncio.Task[None] | None = None
        self.memory_max = 0
        self.rates: list[float] = []

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_error: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        last, at = self._writers.acked, monotonic()
        while True:
            await asyncio.sleep(1)
            self.memory_max = max(self.memory_max, self._gateway.memory_bytes())
            acked, now = self._writers.acked, monotonic()
            self.rates.append((acked - last) / (now - at))
            last, at = acked, now


@dataclass(frozen=True, slots=True)
class _Recovery:
    """What an outage did. Memory in bytes, rates in messages a second."""

    waiting: int
    """Messages in the devices' outboxes when JetStream came back."""
    seconds: float
    peak: float
    sustainable: float
    memory_before: int
    memory_max: int
    cut: int
    checker: Checker


async def section_outage(bench: Bench) -> None:
    """JetStream is away for a minute while 5,000 devices go on producing."""
    away_s = max(60.0, bench.seconds)
    require_descriptors(_COUNT + 500)
    with NatsServer(bench.fresh_directory("nats")) as server, bench.gateway(
        nats__urls=server.url,
        stream__durability="stream",
        session__credit_budget_bytes=_BUDGET_BYTES,
        publish__pending_bytes=_BUDGET_BYTES,
        **NO_KNOCK_LIMIT,
    ) as gateway:  # fmt: skip
        found = await _outage(bench, server, gateway, away_s)
    grown = (found.memory_max - found.memory_before) / _BUDGET_BYTES
    bench.report.table(
        f"JetStream away for {away_s:.0f} s, {_COUNT:,} devices with 1 msg/s each",
        ("", ""),
        [
            ("waiting in the devices' outboxes when it came back", f"{found.waiting:,}"),
            ("caught up after, s", f"{found.seconds:.1f}"),
            ("sustainable / peak of the recovery, msg/s",
             f"{found.sustainable:,.0f} / {found.peak:,.0f}"),
            ("gateway memory before / at most, MiB",
             f"{found.memory_before / _MIB:.0f} / {found.memory_max / _MIB:.0f}"),
            ("disconnects", f"{found.cut}"),
            *((name, f"{each.count:,}") for name, each in found.checker.findings()),
        ],
    )  # fmt: skip
    bench.report.none("disconnects", found.cut)
    bench.report.at_most("memory growth over the budget", grown, 1)
    bench.report.at_most("recovery traffic over sustainable", found.peak / found.sustainable, 1.5)
    clean = found.checker.clean
    bench.report.verdict("everything stored", float(clean), "1", ok=clean)


async def _outage(
    bench: Bench, server: NatsServer, gateway: GatewayServer, away_s: float
) -> _Recovery:
    writers = Writers(bench.issuer, _COUNT, [gateway.port], WriterPlan(messages=0))
    await _connect(writers)
    async with Watch(gateway, writers) as watch:
        producing = asyncio.create_task(
            at_rate(_COUNT, lambda number: writers.each[number % _COUNT].produce(1), tick_s=0.01)
        )
        await asyncio.sleep(5)
        before = watch.memory_max = gateway.memory_bytes()
        await asyncio.to_thread(server.stop)
        await asyncio.sleep(away_s)
        waiting = writers.produced - writers.acked
        await asyncio.to_thread(server.start)
        watch.rates.clear()
        began = monotonic()
        await until(
            lambda: writers.produced - writers.acked < _COUNT, "caught up", _SETTLE_TIMEOUT_S
        )
        recovered_s = monotonic() - began
        await asyncio.sleep(2)
        producing.cancel()
        await asyncio.gather(producing, return_exceptions=True)
        await _all_acked(writers)
    # What the path carries when every device has a full outbox, and nothing is wrong.
    async with Watch(gateway, writers) as full:
        for writer in writers.each:
            writer.produce(100)
        await _all_acked(writers)
    checker = await checked(server.url, writers.settled)
    writers.stop()
    return _Recovery(
        waiting=waiting, seconds=recovered_s, peak=max(watch.rates), sustainable=max(full.rates),
        memory_before=before, memory_max=watch.memory_max, cut=writers.log.cut, checker=checker,
    )  # fmt: skip


async def _connect(writers: Writers) -> None:
    for number, writer in enumerate(writers.each):
        writer.device.begin()
        if number % 50 == 0:
            await asyncio.sleep(0.02)
    await until(lambda: writers.all_inside, "all connected", _SETTLE_TIMEOUT_S)


async def _all_acked(writers: Writers) -> None:
    await until(lambda: writers.acked >= writers.produced, "all acknowledged", _SETTLE_TIMEOUT_S)
