"""Benchmarks of `tidegate sink`: `make bench-sink`, or one with ARGS="compare".

Each figure is of one run; sides of a comparison take turns in it. NATS, PostgreSQL and the sink
share this machine. PostgreSQL runs as it ships: `synchronous_commit` is on.
"""

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import nats
import psycopg

from loadtest.benches.rig import Bench
from loadtest.benches.sections import main_of
from loadtest.benches.yard import TABLE, Cost, Yard, typical
from loadtest.devices.credentials import Issuer
from loadtest.devices.steady import SteadyDevices
from loadtest.errors import TargetError
from loadtest.servers.backends import NatsServer
from loadtest.servers.eventstream import fill, make_streams, plain
from loadtest.servers.gateway import SinkServer
from loadtest.servers.postgres import PostgresServer
from loadtest.verdicts import Report

_TURNS: Final = 3
_ROWS: Final = 200_000
_ROWS_EACH: Final = 4_000
_POISON_EVERY: Final = 1_000
_MEMORY_BYTES_MAX: Final = 200 << 20


@dataclass(slots=True)
class _Way:
    """One way into the table, in all its turns: rows a second, and what a row cost."""

    rates: list[float] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    def row(self, name: str) -> list[str]:
        cost = typical(self.costs)
        return [
            name,
            f"{self.rate:,.0f}",
            f"{cost.cpu_s * 1e6:.2f}",
            f"{cost.wal_bytes:.0f}",
            f"{cost.transactions:.4f}",
        ]


async def compare(yard: Yard, report: Report, _seconds: float) -> None:
    """Rows a second and what a row costs, beside one insert and commit an event."""
    await fill(yard.server.url, 0, _ROWS)
    sink, each = _Way(), _Way()
    own_us = []
    for _ in range(_TURNS):
        rate, cost, cpu_s = await _sink_turn(yard, yard.table(), _ROWS)
        sink.rates.append(rate)
        sink.costs.append(cost / _ROWS)
        own_us.append(cpu_s / _ROWS * 1e6)
        rate, cost = await _each_turn(yard)
        each.rates.append(rate)
        each.costs.append(cost / _ROWS_EACH)
    report.table(
        f"Five columns, median of {_TURNS} turns",
        ["", "rows/s", "PostgreSQL us CPU a row", "WAL bytes a row", "transactions a row"],
        [sink.row("tidegate sink"), each.row("one insert and commit an event")],
    )
    report.console.print(f"  the sink's own CPU: {statistics.median(own_us):.1f} us a row\n")
    ours, theirs = typical(sink.costs), typical(each.costs)
    gain = sink.rate / each.rate
    report.verdict("rows a second, over one insert an event", gain, "at least 15", ok=gain >= 15)
    report.at_most("PostgreSQL's CPU a row, of that", ours.cpu_s / theirs.cpu_s, 0.1)
    report.at_most("transactions a row, of that", ours.transactions / theirs.transactions, 0.1)
    report.verdict("rows a second", sink.rate, "at least 45,000", ok=sink.rate >= 45_000)


async def poison(yard: Yard, report: Report, _seconds: float) -> None:
    """One row in a thousand violates a constraint."""

    def payload(number: int) -> bytes:
        if number % _POISON_EVERY:
            return plain(number)
        return b'{"soc":500,"voltage":1.5}'

    await _fresh_stream(yard)
    await fill(yard.server.url, 0, _ROWS // 2)
    clean = statistics.median(
        [(await _sink_turn(yard, yard.table(), _ROWS // 2))[0] for _ in range(_TURNS)]
    )
    await _fresh_stream(yard)
    await fill(yard.server.url, 0, _ROWS // 2, payload=payload)
    good = _ROWS // 2 - _ROWS // 2 // _POISON_EVERY
    table = yard.table()
    rate = statistics.median(
        [(await _sink_turn(yard, each, good))[0] for each in (table, yard.table(), yard.table())]
    )
    client = await nats.connect(yard.server.url)
    info = await client.jetstream().stream_info("DEADLETTERS", subjects_filter=f"*.*.*.*.{table}")
    await client.close()
    letters = sum((info.state.subjects or {}).values())
    report.table(
        "One row in a thousand violates a constraint",
        ["", "rows/s"],
        [["clean", f"{clean:,.0f}"], ["with the offenders", f"{rate:,.0f}"]],
    )
    report.verdict("throughput of the clean run", rate / clean, "0.5", ok=rate / clean >= 0.5)
    expected = _ROWS // 2 - good
    report.verdict("dead letters", letters, str(expected), ok=letters == expected)


async def latency(yard: Yard, report: Report, seconds: float) -> None:
    """From the PubAck of an event to its committed row, at 100 events a second."""
    await _fresh_stream(yard)
    linger_ms = 50
    table = yard.table()
    with yard.sink(table, linger_ms=linger_ms):
        acked = await _publish_at_100_a_second(yard, int(100 * seconds))
        await yard.rows(table, len(acked))
    waits = _waits_ms(yard, table, acked)
    p50, p99 = (statistics.quantiles(waits, n=100)[each] for each in (49, 98))
    report.table(
        f"From ack to row at 100 events/s, linger {linger_ms} ms",
        ["", "ms"],
        [["p50", f"{p50:.1f}"], ["p99", f"{p99:.1f}"]],
    )
    report.at_most("p99, ms", p99, linger_ms + 50)


async def _publish_at_100_a_second(yard: Yard, count: int) -> dict[int, float]:
    """Unix time of each PubAck, by the event's sequence in the stream."""
    acked: dict[int, float] = {}
    client = await nats.connect(yard.server.url)
    for number in range(count):
        ack = await client.jetstream().publish(
            "events.default.veh-1.battery.low",
            plain(number),
            headers={"ce-time": "2026-11-25T10:00:00Z", "ce-id": f"o:{number + 1}"},
        )
        acked[ack.seq] = time.time()
        await asyncio.sleep(0.01)
    await client.close()
    return acked


def _waits_ms(yard: Yard, table: str, acked: Mapping[int, float]) -> list[float]:
    """From each PubAck to the commit of its row, by PostgreSQL's clock, which is this machine's."""
    moment_of = "extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8"
    query = f"SELECT stream_seq, {moment_of} FROM {table}"  # noqa: S608  # our own name
    with psycopg.connect(yard.database_url) as connection:
        return [(moment - acked[seq]) * 1000 for seq, moment in connection.execute(query)]


async def beside(yard: Yard, report: Report, seconds: float) -> None:
    """Beside a gateway that is offered 20,000 messages a second with fsync: the sink's lag."""
    bench = Bench(yard.directory, Issuer(yard.directory / "issuer"), seconds, report)
    lags: list[float] = []
    with bench.gateway(stream__durability="fsync") as gateway:
        table = yard.table()
        sink = SinkServer(
            yard.directory / "beside",
            nats_url=gateway.nats_url_of("consumers"),
            database_url=yard.database_url,
            table=table,
        )
        async with SteadyDevices(
            gateway.port, bench.credentials(200), rate_per_s=20_000, connect_per_s=1_000
        ) as devices:
            with sink:
                await devices.seen()
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    await asyncio.sleep(0.5)
                    lags.append(await asyncio.to_thread(sink.lag_s))
                seen = await devices.seen()
        rows = yard.count(table)
    report.table(
        "Beside a gateway with fsync",
        ["", ""],
        [
            ["acknowledged a second", f"{seen.acked / seconds:,.0f}"],
            ["rows a second", f"{rows / seconds:,.0f}"],
            ["lag, median s", f"{statistics.median(lags):.2f}"],
            ["lag, largest s", f"{max(lags):.2f}"],
        ],
    )
    report.verdict("largest lag, s", max(lags), "under 2", ok=max(lags) < 2)


async def _sink_turn(yard: Yard, table: str, rows: int) -> tuple[float, Cost, float]:
    """Rows a second from the first row on, PostgreSQL's cost, the sink's CPU seconds."""
    before = yard.cost()
    sink = yard.sink(table)
    with sink:
        began = await yard.rows(table, 1)
        already = yard.count(table)
        ended = await yard.rows(table, rows)
        cpu_s = sink.cpu_s()
        memory = sink.memory_bytes()
    if memory > _MEMORY_BYTES_MAX:
        raise TargetError(f"the sink holds {memory >> 20} MiB")
    return (rows - already) / max(ended - began, 1e-9), yard.cost() - before, cpu_s


async def _each_turn(yard: Yard) -> tuple[float, Cost]:
    yard.ask("DROP TABLE IF EXISTS battery")
    yard.ask(TABLE.format(name="battery"))
    before = yard.cost()
    command = [
        sys.executable,
        "-m",
        "loadtest.benches.insert_each",
        yard.server.url,
        yard.database_url,
    ]
    with subprocess.Popen([*command, str(_ROWS_EACH)]) as process:  # noqa: ASYNC220  # it starts quickly
        began = await yard.rows("battery", 1)
        ended = await yard.rows("battery", _ROWS_EACH)
        process.wait()
    return _ROWS_EACH / (ended - began), yard.cost() - before


async def _fresh_stream(yard: Yard) -> None:
    client = await nats.connect(yard.server.url)
    for name in ("EVENTS", "DEADLETTERS"):
        await client.jetstream().delete_stream(name)
    await client.close()
    await make_streams(yard.server.url)


_SECTIONS: Final = {
    "compare": compare,
    "poison": poison,
    "latency": latency,
    "beside": beside,
}


def _postgres(directory: Path) -> PostgresServer:
    return PostgresServer(directory, track_commit_timestamp="on")


async def _run(names: Sequence[str], seconds: float) -> int:
    report = Report()
    with tempfile.TemporaryDirectory(prefix="tidegate-sinks-") as directory:
        for name in names:
            where = Path(directory) / name
            with NatsServer(where / "nats") as server, _postgres(where / "pg") as postgres:
                await make_streams(server.url)
                await _SECTIONS[name](Yard(where, server, postgres), report, seconds)
    return report.status()


if __name__ == "__main__":
    main_of("bench-sink", "Benchmarks of `tidegate sink`.", _SECTIONS, _run)
