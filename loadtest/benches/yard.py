"""Where sinks are measured: a stream, a database, and what the database spends."""

import asyncio
import itertools
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg

from loadtest.servers.backends import NatsServer
from loadtest.servers.gateway import SinkServer
from loadtest.servers.postgres import PostgresServer
from loadtest.waiting import until_awaited

TABLE: Final = """\
CREATE TABLE {name} (
    device text, at timestamptz, stream_seq bigint, soc int CHECK (soc <= 100), voltage float8
)"""
_ROWS_TIMEOUT_S: Final = 300.0
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Cost:
    """What PostgreSQL spent: CPU in seconds, bytes of write-ahead log, transactions."""

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


def typical(costs: Sequence[Cost]) -> Cost:
    """The median of each figure."""
    return Cost(
        statistics.median(each.cpu_s for each in costs),
        statistics.median(each.wal_bytes for each in costs),
        statistics.median(each.transactions for each in costs),
    )


class Yard:
    """A nats-server and a PostgreSQL of this run, with tables and sinks between them."""

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
        self.ask(TABLE.format(name=name))
        return name

    def cost(self) -> Cost:
        """What PostgreSQL has spent so far."""
        # The counters of a backend reach the statistics only when it is idle.
        return Cost(
            self.postgres.cpu_s(),
            int(self.ask("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')")),
            int(self.ask("SELECT sum(xact_commit) FROM pg_stat_database")),
        )

    def sink(self, table: str, **more: Any) -> SinkServer:
        """A sink that writes into that table; it is not started."""
        return SinkServer(
            self.directory / f"sink-{next(_numbers)}",
            nats_url=self.server.url,
            database_url=self.database_url,
            table=table,
            **more,
        )

    def count(self, table: str) -> int:
        """Rows that are in the table now."""
        return int(self.ask(f"SELECT count(*) FROM {table}"))  # noqa: S608  # our own name

    async def rows(self, table: str, count: int) -> float:
        """Wait until so many rows are there.

        Returns:
            The moment, on the monotonic clock, at which they were seen.
        """

        async def there() -> bool:
            return await asyncio.to_thread(self.count, table) >= count

        await until_awaited(there, f"{count:,} rows", _ROWS_TIMEOUT_S, every_s=0.05)
        return time.monotonic()
