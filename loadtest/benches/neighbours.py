"""Quiet devices beside one that sends as fast as it can, or floods the gateway with any frame."""

import asyncio
import statistics
from typing import Final

from loadtest.benches.rig import NO_KNOCK_LIMIT, Bench
from loadtest.devices.fleet import Meter
from loadtest.devices.flooder import KINDS, flooding
from loadtest.devices.steady import SteadyDevices
from loadtest.servers.gateway import GatewayServer

_TURNS: Final = 3


async def section_chatty(bench: Bench) -> None:
    """1,000 quiet devices, with and without one that sends as fast as it can, in turns."""
    for durability in ("fsync", "stream"):
        await _chatty(bench, durability)


async def _chatty(bench: Bench, durability: str) -> None:
    phase_s = max(8.0, bench.seconds)
    meter = Meter(0)
    seen: dict[bool, list[float]] = {False: [], True: []}
    with bench.gateway(stream__durability=durability, **NO_KNOCK_LIMIT) as gateway:
        async with (
            SteadyDevices(
                gateway.port, bench.credentials(1_000, "quiet"), rate_per_s=500, connect_per_s=500
            ) as steady,
            bench.gateway_devices(1, meter, "chatty").connected(gateway.port) as (device,),
        ):
            for talks in (False, True) * _TURNS:
                meter.window = 10_000 if talks else 0
                if talks:
                    device.top_up()
                await asyncio.sleep(1)
                await steady.seen()
                meter.reset()
                await asyncio.sleep(phase_s)
                seen[talks].append((await steady.seen()).p99_ms)
    bench.report.table(
        f"{durability}: 1,000 quiet devices beside a chatty one, {_TURNS} turns of {phase_s:.0f} s",
        ("", "ack p99 of the quiet, ms"),
        [
            ("alone", _figures(seen[False])),
            ("beside the chatty one", _figures(seen[True])),
            ("messages a second of the chatty one", f"{meter.messages / phase_s:,.0f}"),
        ],
    )
    ratio = statistics.median(seen[True]) / statistics.median(seen[False])
    bench.report.at_most(f"{durability}: quiet ack p99, beside / alone", ratio, 1.5)


async def section_flood(bench: Bench) -> None:
    """500 quiet devices, with and without one that floods, for each kind of frame."""
    rows = []
    worst = 0.0
    with bench.gateway() as gateway:
        async with SteadyDevices(
            gateway.port, bench.credentials(500, "quiet"), rate_per_s=500, connect_per_s=500
        ) as steady:
            for kind in KINDS:
                alone, beside, sent = await _turns(bench, gateway, steady, kind)
                ratio = statistics.median(beside) / statistics.median(alone)
                worst = max(worst, ratio)
                rows.append(
                    (kind, _figures(alone), _figures(beside), f"{ratio:.2f}", f"{sent / 1e6:.2f}")
                )
        closed = gateway.metric('tidegate_sessions_closed_total{cause="flood"}')
        slowed = gateway.metric("tidegate_reads_slowed_total")
    bench.report.table(
        "500 quiet devices beside one that floods",
        ("kind", "ack p99 alone, ms", "beside", "ratio", "MB/s it could send"),
        rows,
    )
    bench.report.console.print(
        f"  read more slowly {slowed:.0f} times, closed {closed:.0f} times\n"
    )
    bench.report.at_most("worst ack p99 beside a flood, over alone", worst, 2)


async def section_few(bench: Bench) -> None:
    """Three quiet devices, with and without one that sends large messages, in turns.

    With so few senders, a mean of what devices send would say little.
    """
    with bench.gateway() as gateway:
        async with SteadyDevices(
            gateway.port, bench.credentials(3, "quiet"), rate_per_s=60, connect_per_s=60
        ) as steady:
            alone, beside, sent = await _turns(bench, gateway, steady, "large messages")
    bench.report.table(
        "3 quiet devices beside one that sends large messages",
        ("ack p99 alone, ms", "beside", "MB/s it could send"),
        [(_figures(alone), _figures(beside), f"{sent / 1e6:.2f}")],
    )
    ratio = statistics.median(beside) / statistics.median(alone)
    bench.report.at_most("ack p99 of a few beside large messages, over alone", ratio, 2)


async def _turns(
    bench: Bench, gateway: GatewayServer, steady: SteadyDevices, kind: str
) -> tuple[list[float], list[float], float]:
    """Ack p99 alone and beside, in turns, in milliseconds; bytes a second the flooder sent."""
    phase_s = max(3.0, bench.seconds / 3)
    alone, beside, sent = [], [], 0
    name = f"flooder-{kind.replace(' ', '-')}"
    for _turn in range(_TURNS):
        await steady.seen()
        await asyncio.sleep(phase_s)
        alone.append((await steady.seen()).p99_ms)
        async with flooding(gateway.port, kind, bench.issuer.token(name)) as flooders:
            await asyncio.sleep(0.5)
            await steady.seen()
            await asyncio.sleep(phase_s)
            beside.append((await steady.seen()).p99_ms)
            sent += sum(flooder.written for flooder in flooders)
        await asyncio.sleep(0.5)
    return alone, beside, sent / (_TURNS * (phase_s + 0.5))


def _figures(values: list[float]) -> str:
    return " ".join(f"{value:.1f}" for value in values)
