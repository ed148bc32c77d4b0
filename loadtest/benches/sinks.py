"""Benchmarks of `tidegate sink`: `make bench-sink`, or one with ARGS="compare".

Each figure is of one run; sides of a comparison take turns in it. NATS, PostgreSQL and the sink
share this machine. PostgreSQL runs as it ships: `synchronous_commit` is on.
"""

import asyncio
import math
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import nats
import psycopg

from loadtest.benches.rig import Bench
from loadtest.benches.sections import main_of
from loadtest.benches.yard import Turn, Yard, each_turn, fresh_stream, median_of, sink_turn
from loadtest.devices.credentials import Issuer
from loadtest.devices.steady import SteadyDevices
from loadtest.errors import TargetError
from loadtest.servers.backends import NatsServer
from loadtest.servers.eventstream import fill, make_streams, plain
from loadtest.servers.gateway import SinkServer
from loadtest.servers.postgres import PostgresServer
from loadtest.verdicts import Report

_TURNS: Final = 3
_EVENTS: Final = 300_000
_EVENTS_EACH: Final = 4_000
_EVENTS_OUTAGE: Final = 1_000_000
_POISON_EVERY: Final = 1_000
_MEMORY_MAX_MIB: Final = 200


async def compare(yard: Yard, report: Report, _seconds: float) -> None:
    """Rows a second and what a row costs, beside one insert and commit an event."""
    await fill(yard.server.url, 0, _EVENTS)
    ours, theirs = [], []
    for _ in range(_TURNS):
        ours.append((await sink_turn(yard, _EVENTS))[1])
        theirs.append(await each_turn(yard, _EVENTS_EACH))
    sink, each = median_of(ours), median_of(theirs)
    report.table(
        f"Five columns, median of {_TURNS} turns",
        ["", "rows/s", "PostgreSQL us CPU a row", "WAL bytes a row", "transactions a row"],
        [_figures("tidegate sink", sink), _figures("one insert and commit an event", each)],
    )
    memory_mib = sink.memory_bytes / (1 << 20)
    report.console.print(
        f"  rows a second by turn: {', '.join(f'{turn.rows_per_s:,.0f}' for turn in ours)}\n"
        f"  CPU a row: sink {sink.own_us:.1f}, nats-server {sink.nats_us:.1f},"
        f" PostgreSQL {sink.a_row.cpu_s * 1e6:.1f} us; the sink holds {memory_mib:.0f} MiB\n"
    )
    gain = sink.rows_per_s / each.rows_per_s
    report.verdict("rows a second, over one insert an event", gain, "at least 15", ok=gain >= 15)
    for what, share in (
        ("PostgreSQL's CPU a row, of that", sink.a_row.cpu_s / each.a_row.cpu_s),
        ("transactions a row, of that", sink.a_row.transactions / each.a_row.transactions),
    ):
        report.verdict(what, share, "at most 0.1", ok=share <= 0.1)
    rate = sink.rows_per_s
    report.verdict("rows a second", rate, "at least 45,000", ok=rate >= 45_000)
    ok = memory_mib <= _MEMORY_MAX_MIB
    report.verdict("memory, MiB", memory_mib, f"at most {_MEMORY_MAX_MIB}", ok=ok)


def _figures(name: str, turn: Turn) -> list[str]:
    cost = turn.a_row
    return [
        name,
        f"{turn.rows_per_s:,.0f}",
        f"{cost.cpu_s * 1e6:.2f}",
        f"{cost.wal_bytes:.0f}",
        f"{cost.transactions:.5f}",
    ]


async def poison(yard: Yard, report: Report, _seconds: float) -> None:
    """One row in a thousand violates a constraint."""

    def payload(number: int) -> bytes:
        return plain(number) if number % _POISON_EVERY else b'{"soc":500,"voltage":1.5}'

    events = _EVENTS // 3
    await fill(yard.server.url, 0, events)
    clean = median_of([(await sink_turn(yard, events))[1] for _ in range(_TURNS)]).rows_per_s
    await fresh_stream(yard)
    await fill(yard.server.url, 0, events, payload=payload)
    turns = [await sink_turn(yard, events) for _ in range(_TURNS)]
    rate = median_of([turn for _table, turn in turns]).rows_per_s
    table = turns[0][0]
    rows = yard.ask(f"SELECT count(*) FROM {table}")  # noqa: S608  # our own name
    client = await nats.connect(yard.server.url)
    wanted = f"deadletters.*.*.sink.{table}"
    info = await client.jetstream().stream_info("DEADLETTERS", subjects_filter=wanted)
    letters = sum((info.state.subjects or {}).values())
    one = next(iter(info.state.subjects or {"": 0}))
    last = await client.jetstream().get_last_msg("DEADLETTERS", one)
    await client.close()
    report.table(
        "One row in a thousand violates a constraint",
        ["", "rows/s"],
        [["clean", f"{clean:,.0f}"], ["with the offenders", f"{rate:,.0f}"]],
    )
    report.console.print(f"  a letter says: {(last.headers or {}).get('Tidegate-Detail')}\n")
    share = rate / clean
    report.verdict("throughput of the clean run", share, "at least 0.5", ok=share >= 0.5)
    offenders = events // _POISON_EVERY
    report.verdict("dead letters", letters, str(offenders), ok=letters == offenders)
    report.verdict("rows", rows, str(events - offenders), ok=rows == events - offenders)


async def latency(yard: Yard, report: Report, seconds: float) -> None:
    """From the PubAck of an event to its committed row, at 100 events a second."""
    linger_ms = 50
    table = yard.table()
    acked: dict[int, float] = {}
    with yard.sink(table, linger_ms=linger_ms):
        client = await nats.connect(yard.server.url)
        for number in range(int(100 * seconds)):
            ack = await client.jetstream().publish(
                "events.default.veh-1.battery.low",
                plain(number),
                headers={"ce-time": "2026-11-25T10:00:00Z", "ce-id": f"o:{number + 1}"},
            )
            acked[ack.seq] = time.time()
            await asyncio.sleep(0.01)
        await client.close()
        await yard.processed(table, len(acked))
    with psycopg.connect(yard.database_url) as connection:
        moment_of = "extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8"
        query = f"SELECT stream_seq, {moment_of} FROM {table}"  # noqa: S608  # our own name
        waits = [(moment - acked[seq]) * 1000 for seq, moment in connection.execute(query)]
    p50, p99 = (statistics.quantiles(waits, n=100)[each] for each in (49, 98))
    report.table(
        f"From ack to row at 100 events/s, linger {linger_ms} ms",
        ["", "ms"],
        [["p50", f"{p50:.1f}"], ["p99", f"{p99:.1f}"]],
    )
    limit = linger_ms + 50
    report.verdict("p99, ms", p99, f"at most {limit}", ok=p99 <= limit)


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
                    lag_s = await asyncio.to_thread(sink.lag_s)
                    if not math.isnan(lag_s):  # it has not read anything yet
                        lags.append(lag_s)
                seen = await devices.seen()
                if not lags:
                    raise TargetError("the sink has not said once how far it is behind")
    report.table(
        "Beside a gateway with fsync",
        ["", ""],
        [
            ["acknowledged a second", f"{seen.acked / seconds:,.0f}"],
            ["rows a second", f"{yard.rate(table):,.0f}"],
            ["lag, median s", f"{statistics.median(lags):.2f}"],
            ["lag, largest s", f"{max(lags):.2f}"],
        ],
    )
    report.verdict("largest lag, s", max(lags), "under 2", ok=max(lags) < 2)


async def outage(yard: Yard, report: Report, seconds: float) -> None:
    """PostgreSQL is away for six times `--seconds` in a stream of a million events."""
    events = _EVENTS_OUTAGE
    await fill(yard.server.url, 0, events)
    table = yard.table()
    memory = 0.0
    with yard.sink(table) as sink:
        await yard.processed(table, events // 3)
        yard.disconnect()
        yard.postgres.kill()
        end = time.monotonic() + 6 * seconds
        while time.monotonic() < end:
            memory = max(memory, sink.memory_bytes())
            await asyncio.sleep(0.5)
        yard.postgres.start()
        returned = yard.ask("SELECT extract(epoch FROM clock_timestamp())::float8")
        await yard.processed(table, events)
        memory = max(memory, sink.memory_bytes())
    moment = "extract(epoch FROM pg_xact_commit_timestamp(xmin))"
    before, after, wait_s, distinct = yard.row(
        f"WITH rows AS (SELECT {moment} AS at, stream_seq FROM {table})"  # noqa: S608  # our own names
        f" SELECT count(*) FILTER (WHERE at < {returned})"
        f"  / (max(at) FILTER (WHERE at < {returned}) - min(at)),"
        f" count(*) FILTER (WHERE at >= {returned})"
        f"  / (max(at) - min(at) FILTER (WHERE at >= {returned})),"
        f" min(at) FILTER (WHERE at >= {returned}) - {returned},"
        " count(DISTINCT stream_seq) FROM rows"
    ) or (0, 0, 0, 0)
    rows = yard.ask(f"SELECT count(*) FROM {table}")  # noqa: S608  # our own name
    report.table(
        f"PostgreSQL away for {6 * seconds:.0f} s",
        ["", ""],
        [
            ["rows a second before", f"{before:,.0f}"],
            ["rows a second after", f"{after:,.0f}"],
            ["first row after its return, s", f"{wait_s:.1f}"],
        ],
    )
    report.verdict("events without a row", events - distinct, "0", ok=distinct == events)
    report.verdict("rows too many", rows - distinct, "0", ok=rows == distinct)
    share = float(after / before)
    report.verdict("rate after, of that before", share, "at least 0.8", ok=share >= 0.8)
    memory_mib = memory / (1 << 20)
    ok = memory_mib <= _MEMORY_MAX_MIB
    report.verdict("memory, MiB", memory_mib, f"at most {_MEMORY_MAX_MIB}", ok=ok)


_SECTIONS: Final[dict[str, Callable[[Yard, Report, float], Awaitable[None]]]] = {
    "compare": compare,
    "poison": poison,
    "latency": latency,
    "beside": beside,
    "outage": outage,
}


async def _run(names: Sequence[str], seconds: float) -> int:
    report = Report()
    with tempfile.TemporaryDirectory(prefix="tidegate-sinks-") as directory:
        for name in names:
            where = Path(directory) / name
            with (
                NatsServer(where / "nats") as server,
                PostgresServer(where / "pg", track_commit_timestamp="on") as postgres,
                Yard(where, server, postgres) as yard,
            ):
                await make_streams(server.url)
                await _SECTIONS[name](yard, report, seconds)
    return report.status()


if __name__ == "__main__":
    main_of("bench-sink", "Benchmarks of `tidegate sink`.", _SECTIONS, _run)
