"""Where sinks are measured: a filled stream, a database, and what both sides of a comparison spend.

A rate is taken from the moments at which PostgreSQL committed (`track_commit_timestamp`), so that
watching a run costs the database next to nothing.
"""

import asyncio
import itertools
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import nats
import psycopg

from loadtest.errors import TargetError
from loadtest.servers.backends import NatsServer
from loadtest.servers.eventstream import make_streams
from loadtest.servers.gateway import SinkServer
from loadtest.servers.postgres import PostgresServer
from loadtest.waiting import until_awaited

_TABLE: Final = """\
CREATE TABLE {name} (
    device text, at timestamptz, stream_seq bigint, soc int CHECK (soc <= 100), voltage float8
)"""
_COMMITS: Final = """\
WITH rows AS (SELECT pg_xact_commit_timestamp(xmin) AS moment FROM {table}),
     ends AS (SELECT min(moment) AS first, max(moment) AS last FROM rows)
SELECT count(*) FILTER (WHERE moment > first), extract(epoch FROM last - first)::float8
FROM rows, ends GROUP BY first, last"""
_TIMEOUT_S: Final = 240.0
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Cost:
    """What PostgreSQL spent."""

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


@dataclass(frozen=True, slots=True)
class Turn:
    """One side's figures in one turn, or the medians of several."""

    rows_per_s: float
    a_row: Cost
    own_us: float = 0.0
    """CPU of the process that writes, a row."""
    nats_us: float = 0.0
    memory_bytes: float = 0.0


def median_of(turns: Sequence[Turn]) -> Turn:
    """The median of each figure; of memory the largest."""
    costs = [turn.a_row for turn in turns]
    return Turn(
        statistics.median(turn.rows_per_s for turn in turns),
        Cost(
            statistics.median(each.cpu_s for each in costs),
            statistics.median(each.wal_bytes for each in costs),
            statistics.median(each.transactions for each in costs),
        ),
        statistics.median(turn.own_us for turn in turns),
        statistics.median(turn.nats_us for turn in turns),
        max(turn.memory_bytes for turn in turns),
    )


class Yard:
    """A nats-server and a PostgreSQL of this run. A context."""

    def __init__(self, directory: Path, server: NatsServer, postgres: PostgresServer) -> None:
        self.directory = directory
        self.server = server
        self.postgres = postgres
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._asked = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.disconnect()

    def disconnect(self) -> None:
        """Close the watcher's connection; the next query makes another. For a server that ends."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def database_url(self) -> str:
        return self.postgres.url()

    def row(self, query: str) -> tuple[Any, ...] | None:
        """The first row of a query, or None for a statement."""
        if self._connection is None or self._connection.broken:
            self._connection = psycopg.connect(self.database_url, autocommit=True)
        self._asked += 1
        cursor = self._connection.execute(query)
        found: tuple[Any, ...] | None = cursor.fetchone() if cursor.description else None
        return found

    def ask(self, query: str) -> Any:
        """The first value of a query, or None for a statement."""
        row = self.row(query)
        return row[0] if row is not None else None

    def table(self, name: str | None = None) -> str:
        """A new, empty table."""
        name = name or f"battery_{next(_numbers)}"
        self.ask(f"DROP TABLE IF EXISTS {name}")
        self.ask(_TABLE.format(name=name))
        return name

    def cost(self) -> Cost:
        """Spent so far, without the transactions of the watcher itself."""
        self.ask("SELECT pg_stat_force_next_flush()")
        self.ask("SELECT 1")
        committed = int(self.ask("SELECT sum(xact_commit) FROM pg_stat_database"))
        return Cost(
            self.postgres.cpu_s(),
            int(self.ask("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')")),
            committed - self._asked,
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

    def position(self, sink: str) -> int:
        """The stream sequence up to which a sink has processed; 0 while it has not begun."""
        try:
            return self.ask(f"SELECT position FROM tidegate_sink WHERE name = '{sink}'") or 0  # noqa: S608  # our own name
        except psycopg.errors.UndefinedTable:
            return 0

    async def processed(self, sink: str, wanted: int) -> int:
        """Wait until a sink's position is `wanted` or beyond; the position.

        Raises:
            TargetError: it is not, in time.
        """

        async def there() -> bool:
            return await asyncio.to_thread(self.position, sink) >= wanted

        await until_awaited(there, f"{sink}: position {wanted:,}", _TIMEOUT_S)
        return self.position(sink)

    def rate(self, table: str) -> float:
        """Rows a second between the first commit and the last."""
        row = self.row(_COMMITS.format(table=table))
        assert row is not None
        rows, seconds = row
        return float(rows / seconds) if seconds else 0.0


async def sink_turn(yard: Yard, events: int) -> tuple[str, Turn]:
    """A new sink reads a stream of so many events to its end. Its table, and what that took."""
    table = yard.table()
    before = yard.cost()
    with yard.sink(table) as sink:
        first = await yard.processed(table, 1)
        own_s, nats_s = sink.cpu_s(), yard.server.cpu_s()
        await yard.processed(table, events)
        own_s, nats_s = sink.cpu_s() - own_s, yard.server.cpu_s() - nats_s
        memory = sink.memory_bytes()
    spent = yard.cost() - before
    us = 1e6 / max(1, events - first)
    return table, Turn(yard.rate(table), spent / events, own_s * us, nats_s * us, memory)


async def each_turn(yard: Yard, events: int) -> Turn:
    """One insert and one commit for each event."""
    table = yard.table("battery")
    before = yard.cost()
    command = [
        sys.executable, "-m", "loadtest.benches.insert_each", yard.server.url,
        yard.database_url, str(events),
    ]  # fmt: skip
    process = await asyncio.create_subprocess_exec(*command)
    if await process.wait():
        raise TargetError("insert_each failed")
    return Turn(yard.rate(table), (yard.cost() - before) / events)


async def fresh_stream(yard: Yard) -> None:
    """Delete what is stored and make the streams anew."""
    client = await nats.connect(yard.server.url)
    for name in ("EVENTS", "DEADLETTERS"):
        await client.jetstream().delete_stream(name)
    await client.close()
    await make_streams(yard.server.url)
