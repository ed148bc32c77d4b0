"""The benchmarks of the message path: `make bench`.

    python -m loadtest.benches.messages [SECTION...]

Each compares the gateway with a peer in the same run on the same machine: nats-server's own
WebSocket listener, whose devices publish to JetStream and wait for PubAcks, with the same message
and the same window. Absolute figures are this machine's; the objectives are ratios.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial
from time import perf_counter
from typing import Final

from loadtest.benches.quiet import section_quiet
from loadtest.benches.quorum import section_cluster
from loadtest.benches.rig import Bench
from loadtest.benches.sections import main_of_sections
from loadtest.benches.sides import COLUMNS, TURNS, Figures, Limit, Side, provision_peer
from loadtest.devices.fleet import Fleet, Meter
from loadtest.devices.limits import require_descriptors
from loadtest.devices.pace import at_rate
from loadtest.devices.senders import Sender
from loadtest.devices.wire import PAYLOAD
from loadtest.servers.process import Target

_SETTLE_S: Final = 2.0
_RATE_WANTED: Final = 0.85
_SHARE_WANTED: Final = 0.9


async def compare_throughput(
    bench: Bench, *, durability: str, devices: int, window: int
) -> tuple[Figures, Figures, Limit]:
    """Measure both sides and the machine's limit in turn, and print a table.

    Returns:
        The gateway's figures, the peer's, and what a bare publisher reached.
    """
    with (
        bench.peer(fsync=durability == "fsync") as peer,
        bench.gateway(stream__durability=durability) as gateway,
        bench.gateway(stream__durability=durability) as without_devices,
    ):
        await provision_peer(peer)
        sides = (
            Side(gateway, partial(bench.gateway_devices, devices), window),
            Side(peer, partial(bench.nats_devices, devices), window),
        )
        limit = Limit(without_devices, "atomic" if durability == "fsync" else "linked", devices)
        taken = (*sides, limit)
        for number in range(TURNS):
            for side in taken if number % 2 else reversed(taken):
                await side.take_turn(number, bench.seconds)
        ours, theirs = (side.figures for side in sides)
    bench.report.table(
        f"{durability}: {devices} devices, {window} in flight each, {len(PAYLOAD)} bytes",
        COLUMNS,
        [
            ours.row("tidegate"),
            theirs.row("nats-server WebSocket"),
            ("bare publisher, same batches", f"{limit.rate:,.0f}", f"{limit.cpu_us:.1f}", "", ""),
        ],
    )
    return ours, theirs, limit


async def section_fsync(bench: Bench) -> None:
    """Acknowledged only after fsync, on both sides."""
    ours, theirs, limit = await compare_throughput(
        bench, durability="fsync", devices=200, window=100
    )
    ratio = ours.rate / theirs.rate
    bench.report.verdict("fsync, rate over the peer's", ratio, "at least 10", ok=ratio >= 10)
    share = ours.rate / limit.rate
    bench.report.verdict(
        "fsync, rate over a bare publisher's", share, "at least 0.9", ok=share >= _SHARE_WANTED
    )


async def section_stream(bench: Bench) -> None:
    """JetStream's default sync, on both sides."""
    ours, theirs, limit = await compare_throughput(
        bench, durability="stream", devices=200, window=100
    )
    ratio = ours.rate / theirs.rate
    bench.report.verdict(
        "stream, rate over the peer's", ratio, "at least 0.85", ok=ratio >= _RATE_WANTED
    )
    cost = ours.cpu_us / theirs.cpu_us
    bench.report.at_most("stream, CPU a message over the peer's", cost, 1.27)
    bench.report.console.print(
        f"  stream, rate over a bare publisher's: {ours.rate / limit.rate:.2f}\n"
    )


async def section_single(bench: Bench) -> None:
    """One message a frame: many devices with one message in flight each. For information."""
    for durability in ("fsync", "stream"):
        ours, theirs, _limit = await compare_throughput(
            bench, durability=durability, devices=500, window=1
        )
        bench.report.console.print(
            f"  {durability}, one message a frame: {ours.rate / theirs.rate:.2f} of the peer\n"
        )


async def _memory_per_connection(target: Target, fleet: Fleet, count: int) -> float:
    await asyncio.sleep(_SETTLE_S)
    before = target.memory_bytes()
    async with fleet.connected(target.port):
        await asyncio.sleep(_SETTLE_S)
        return (target.memory_bytes() - before) / count


async def section_idle(bench: Bench) -> None:
    """Memory an idle connection."""
    count = 5_000
    require_descriptors(count + 200)
    with bench.peer(fsync=True) as peer:
        await provision_peer(peer)
        theirs = await _memory_per_connection(peer, bench.nats_devices(count, Meter(0)), count)
    with bench.gateway() as gateway:
        ours = await _memory_per_connection(gateway, bench.gateway_devices(count, Meter(0)), count)
    bench.report.table(
        f"{count:,} idle connections",
        ("", "KiB a connection"),
        [
            ("tidegate", f"{ours / 1024:.1f}"),
            ("nats-server WebSocket", f"{theirs / 1024:.1f}"),
        ],
    )
    wanted = f"at most 10 and below {theirs / 1024:.1f}"
    ok = ours <= 10 * 1024 and ours < theirs
    bench.report.verdict("idle memory, KiB a connection", ours / 1024, wanted, ok=ok)


async def section_hold(bench: Bench) -> None:
    """15,000 idle connections with keepalive, while 1,000 messages a second flow."""
    idle, busy, rate = 15_000, 100, 1_000
    require_descriptors(idle + busy + 500)
    meter = Meter(0)
    idle_fleet = bench.gateway_devices(idle, Meter(0))
    busy_fleet = bench.gateway_devices(busy, meter, "busy")
    keepalive = {"keepalive__interval_ms": 20_000, "keepalive__timeout_ms": 15_000}
    with bench.gateway(**keepalive) as gateway:
        async with (
            idle_fleet.connected(gateway.port),
            busy_fleet.connected(gateway.port) as senders,
        ):
            seconds = max(30.0, bench.seconds)
            cpu_s, began = gateway.cpu_s(), perf_counter()
            sent = await _send_for(seconds, rate, senders)
            await asyncio.sleep(_SETTLE_S)
            cpu = (gateway.cpu_s() - cpu_s) / (perf_counter() - began)
            lost = idle_fleet.lost + busy_fleet.lost
            rows = [
                ("connections held / lost", f"{gateway.status()['connections']:,} / {lost}"),
                ("messages sent / acknowledged", f"{sent:,} / {meter.messages:,}"),
                ("ack p50 / p99 ms", f"{meter.wait_ms(50):.1f} / {meter.wait_ms(99):.1f}"),
                ("CPU of gateway and nats-server, cores", f"{cpu:.2f}"),
                ("gateway memory, MiB", f"{gateway.memory_bytes() / 2**20:.0f}"),
            ]
    bench.report.table(
        f"{idle:,} idle connections for {seconds:.0f} s, {rate:,} msg/s", ("", ""), rows
    )
    ok = lost == 0 and meter.messages == sent
    bench.report.verdict("hold, connections lost", lost, "0, all acknowledged", ok=ok)


async def _send_for(seconds: float, rate_per_s: float, senders: Sequence[Sender]) -> int:
    """Send at that rate, each device in turn. How many messages were sent."""
    sent = 0

    def send(number: int) -> None:
        nonlocal sent
        senders[number % len(senders)].fill(1)
        sent = number + 1

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await at_rate(rate_per_s, send)
    return sent


SECTIONS: Final = {
    "fsync": section_fsync,
    "stream": section_stream,
    "single": section_single,
    "quiet": section_quiet,
    "idle": section_idle,
    "hold": section_hold,
    "cluster": section_cluster,
}


if __name__ == "__main__":
    main_of_sections("bench", "Benchmarks of the message path.", SECTIONS)
