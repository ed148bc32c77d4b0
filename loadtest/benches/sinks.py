"""Benchmarks of `tidegate sink`: `make bench-sink`, or one with ARGS="compare".

Each figure is of one run; sides of a comparison take turns in it. NATS, PostgreSQL and the sink
share this machine. PostgreSQL runs as it ships: `synchronous_commit` is on.
"""

import asyncio
import itertools
import math
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import nats
import psycopg

from loadtest.benches.rig import Bench
from loadtest.benches.sections import main_of
from loadtest.devices.credentials import Issuer
from loadtest.devices.steady import SteadyDevices
from loadtest.errors import TargetError
from loadtest.servers.eventstream import fill, make_streams, plain
from loadtest.servers.postgres import PostgresServer
from loadtest.servers.targets import NatsServer, Target
from loadtest.verdicts import Report

_TURNS: Final = 3
_ROWS: Final = 200_000
_ROWS_EACH: Final = 4_000
_TABLE: Final = """\
CREATE TABLE {name} (
    device text, at timestamptz, stream_seq bigint, soc int CHECK (soc <= 100), voltage float8
)"""
_POISON_EVERY: Final = 1_000
_numbers = itertools.count(1)


class SinkServer(Target):
    """A `tidegate sink` process."""

    name = "tidegate sink"

    def __init__(
        self,
        directory: Path,
        *,
        nats_url: str,
        database_url: str,
        table: str,
        linger_ms: int = 200,
        program: Sequence[str] = ("-c", "from gateway.cli import main; main()"),
    ) -> None:
        """
        Args:
            directory: for its files and log.
            nats_url: where the stream is.
            database_url: where the table is.
            table: of five columns; its name is the sink's too.
            linger_ms: of the sink.
            program: how Python runs the command `tidegate`, or a broken one.
        """
        super().__init__(directory)
        self._nats_url = nats_url
        self._database_url = database_url
        self._program = program
        self.table = table
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "events.toml").write_text(
            f'[[sink]]\nname = "{table}"\ntable = "{table}"\nlinger_ms = {linger_ms}\n'
            '[sink.columns]\ndevice = "device"\nat = "time"\nstream_seq = "stream_seq"\n'
            'soc = "data.soc"\nvoltage = "data.voltage"\n'
        )
        (directory / "database").write_text(database_url)

    def command(self) -> list[str]:
        return [
            sys.executable,
            *self._program,
            "sink",
            f"--events={self.directory / 'events.toml'}",
            f"--database-url-file={self.directory / 'database'}",
            f"--nats-url={self._nats_url}",
            f"--ops-port={self.port}",
        ]


@dataclass(frozen=True, slots=True)
class Cost:
    """What PostgreSQL spent, as far as it says."""

    cpu_s: float
    wal_bytes: float
    transactions: float

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(
            self.cpu_s - other.cpu_s,
            self.wal_bytes - other.wal_bytes,
            self.transactions - other.transactions,
        )

    def __truediv__(self, rows: int) -> "Cost":
        return Cost(self.cpu_s / rows, self.wal_bytes / rows, self.transactions / rows)


def _typical(costs: Sequence[Cost]) -> Cost:
    """The median of each figure."""
    return Cost(
        statistics.median(each.cpu_s for each in costs),
        statistics.median(each.wal_bytes for each in costs),
        statistics.median(each.transactions for each in costs),
    )


class Yard:
    """A nats-server and a PostgreSQL of this run."""

    def __init__(self, directory: Path, server: NatsServer, postgres: PostgresServer) -> None:
        self.directory = directory
        self.server = server
        self.postgres = postgres

    @property
    def database_url(self) -> str:
        return self.postgres.url()

    def ask(self, query: str) -> Any:
        """The first value of a query, or None for a statement."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            cursor = connection.execute(query)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row is not None else None

    def table(self) -> str:
        """A new, empty table."""
        name = f"battery_{next(_numbers)}"
        self.ask(_TABLE.format(name=name))
        return name

    def cost(self) -> Cost:
        """Spent so far."""
        # Counters of a backend reach the statistics when it is idle; CPU is the system's word.
        return Cost(
            self.postgres.cpu_s(),
            int(self.ask("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')")),
            int(self.ask("SELECT sum(xact_commit) FROM pg_stat_database")),
        )

    def sink(self, table: str, **more: Any) -> SinkServer:
        """A sink into that table, not started."""
        return SinkServer(
            self.directory / f"sink-{next(_numbers)}",
            nats_url=self.server.url,
            database_url=self.database_url,
            table=table,
            **more,
        )

    async def rows(self, table: str, count: int, timeout_s: float = 300.0) -> float:
        """Wait until so many rows are there; the moment at which they were seen."""
        deadline = time.monotonic() + timeout_s
        query = f"SELECT count(*) FROM {table}"  # noqa: S608  # our own name
        while await asyncio.to_thread(self.ask, query) < count:
            if time.monotonic() > deadline:
                raise TargetError(f"{count} rows did not come within {timeout_s:.0f} s")
            await asyncio.sleep(0.05)
        return time.monotonic()


async def compare(yard: Yard, report: Report, _seconds: float) -> None:
    """Rows a second and what a row costs, beside one insert and commit an event."""
    await fill(yard.server.url, 0, _ROWS)
    sink_rates, each_rates = [], []
    sink_cost, each_cost = [], []
    own_us = []
    for _ in range(_TURNS):
        rate, cost, cpu_s = await _sink_turn(yard, yard.table(), _ROWS)
        sink_rates.append(rate)
        sink_cost.append(cost / _ROWS)
        own_us.append(cpu_s / _ROWS * 1e6)
        rate, cost = await _each_turn(yard)
        each_rates.append(rate)
        each_cost.append(cost / _ROWS_EACH)
    ours, theirs = _typical(sink_cost), _typical(each_cost)
    rows = [
        [
            name,
            f"{statistics.median(rates):,.0f}",
            f"{cost.cpu_s * 1e6:.2f}",
            f"{cost.wal_bytes:.0f}",
            f"{cost.transactions:.4f}",
        ]
        for name, rates, cost in (
            ("tidegate sink", sink_rates, ours),
            ("one insert and commit an event", each_rates, theirs),
        )
    ]
    report.table(
        f"Five columns, median of {_TURNS} turns",
        ["", "rows/s", "PostgreSQL us CPU a row", "WAL bytes a row", "transactions a row"],
        rows,
    )
    report.console.print(f"  the sink's own CPU: {statistics.median(own_us):.1f} us a row\n")
    gain = statistics.median(sink_rates) / statistics.median(each_rates)
    report.verdict("rows a second, over one insert an event", gain, "at least 15", ok=gain >= 15)
    cpu = ours.cpu_s / theirs.cpu_s
    report.verdict("PostgreSQL's CPU a row, of that", cpu, "at most 0.1", ok=cpu <= 0.1)
    transactions = ours.transactions / theirs.transactions
    report.verdict(
        "transactions a row, of that", transactions, "at most 0.1", ok=transactions <= 0.1
    )
    rate = statistics.median(sink_rates)
    report.verdict("rows a second", rate, "at least 45,000", ok=rate >= 45_000)


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
    waits: list[float] = []
    with yard.sink(table, linger_ms=linger_ms):
        client = await nats.connect(yard.server.url)
        acked: dict[int, float] = {}
        for number in range(int(100 * seconds)):
            ack = await client.jetstream().publish(
                "events.default.veh-1.battery.low",
                plain(number),
                headers={"ce-time": "2026-11-25T10:00:00Z", "ce-id": f"o:{number + 1}"},
            )
            acked[ack.seq] = time.time()
            await asyncio.sleep(0.01)
        await client.close()
        await yard.rows(table, len(acked))
        with psycopg.connect(yard.database_url) as connection:
            moment_of = "extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8"
            query = f"SELECT stream_seq, {moment_of} FROM {table}"  # noqa: S608  # our own name
            for seq, moment in connection.execute(query):
                waits.append((moment - acked[seq]) * 1000)
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
            nats_url=_consumer_url(gateway.directory / "data"),
            database_url=yard.database_url,
            table=table,
        )
        tokens = [(f"veh-{n}", bench.issuer.token(f"veh-{n}")) for n in range(200)]
        async with SteadyDevices(
            gateway.port, tokens, rate_per_s=20_000, connect_per_s=1_000
        ) as devices:
            with sink:
                await devices.seen()
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    await asyncio.sleep(0.5)
                    lags.append(await asyncio.to_thread(_lag_s, sink))
                seen = await devices.seen()
        rows = yard.ask(f"SELECT count(*) FROM {table}")  # noqa: S608  # our own name
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
        already = yard.ask(f"SELECT count(*) FROM {table}")  # noqa: S608  # our own name
        ended = await yard.rows(table, rows)
        cpu_s = sink.cpu_s()
        memory = sink.memory_bytes()
    if memory > 200 << 20:
        raise TargetError(f"the sink holds {memory >> 20} MiB")
    return (rows - already) / max(ended - began, 1e-9), yard.cost() - before, cpu_s


async def _each_turn(yard: Yard) -> tuple[float, Cost]:
    yard.ask("DROP TABLE IF EXISTS battery")
    yard.ask(_TABLE.format(name="battery"))
    before = yard.cost()
    command = [
        sys.executable,
        "-m",
        "loadtest.benches.insert_each",
        yard.server.url,
        yard.database_url,
    ]
    with subprocess.Popen([*command, str(_ROWS_EACH)]) as process:  # noqa: ASYNC220  # at once
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


def _consumer_url(data_dir: Path) -> str:
    return next((data_dir / "nats").glob("*consumers*")).read_text().strip()


def _lag_s(sink: SinkServer) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{sink.port}/metrics", timeout=5) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("tidegate_sink_lag_seconds"):
                return float(line.rpartition(" ")[2])
    return math.inf


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
    return 1 if report.failed else 0


if __name__ == "__main__":
    main_of("bench-sink", __doc__ or "", _SECTIONS, _run)
