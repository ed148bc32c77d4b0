"""Fault runs of sinks: two sinks share one table, and every process dies in turn.

The command is `python -m loadtest.lab.sink_faults`:

    make faults-sink                                      # a million events, 20 random faults
    make faults-sink ARGS="--events 50000 --faults 5 --seed 7"
    make faults-sink ARGS="--control no-lock"             # a broken sink, which must be found out

The checker reads stream and table itself: each stored event is in the table once, unchanged.
A run is its seed: the same seed picks the same faults in the same order.
"""

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Final

import psycopg
import uvloop

from loadtest.checker import messages_of
from loadtest.errors import LoadtestError
from loadtest.lab.mishaps import kill_and_start, pause
from loadtest.servers.backends import NatsServer
from loadtest.servers.eventstream import fill, make_streams
from loadtest.servers.gateway import SinkServer
from loadtest.servers.network import BadNetwork
from loadtest.servers.postgres import PostgresServer
from loadtest.verdicts import Report
from loadtest.waiting import until_awaited

_SETTLE_TIMEOUT_S: Final = 300.0
_PAUSE_S: Final = 4.0
_LONG_PAUSE_S: Final = 12.0
"""Longer than a lease, so that the other sink takes over meanwhile."""
_BROKEN: Final = Path(__file__).parents[2] / "tests" / "support" / "broken_sink.py"
CONTROLS: Final = ("no-lock", "position-apart")
# A deferred constraint is checked at the commit, where it must not fail a whole batch.
_TABLE: Final = """\
CREATE TABLE battery (
    device text, at timestamptz, stream_seq bigint, soc int, voltage float8,
    CONSTRAINT sane EXCLUDE (stream_seq WITH =) WHERE (soc > 1000) DEFERRABLE INITIALLY DEFERRED
)"""


class Stage:
    """Two sinks, a nats-server, a PostgreSQL behind a bad network; and what can be done to them."""

    def __init__(
        self,
        sinks: Sequence[SinkServer],
        server: NatsServer,
        postgres: PostgresServer,
        network: BadNetwork,
        rng: random.Random,
    ) -> None:
        self.sinks = sinks
        self.server = server
        self.postgres = postgres
        self.network = network
        self._rng = rng
        self.done: Counter[str] = Counter()
        self._faults: dict[str, Callable[[], Awaitable[None]]] = {
            "kill -9 sink": self._kill_sink,
            "SIGSTOP sink": self._stop_sink,
            "kill -9 PostgreSQL": self._kill_postgres,
            "SIGSTOP PostgreSQL": self._stop_postgres,
            "kill -9 NATS": self._kill_nats,
            "SIGSTOP NATS": self._stop_nats,
            "connections cut": self._cut,
            "NATS starts last": self._nats_starts_last,
        }

    async def break_something(self) -> None:
        """One fault, of the kinds that were tried least so far."""
        least = min(self.done[name] for name in self._faults)
        name = self._rng.choice([each for each in self._faults if self.done[each] == least])
        self.done[name] += 1
        await self._faults[name]()

    async def _kill_sink(self) -> None:
        await kill_and_start(self._rng.choice(self.sinks))

    async def _stop_sink(self) -> None:
        await pause(self._rng.choice(self.sinks).pids, _LONG_PAUSE_S)

    async def _kill_postgres(self) -> None:
        await kill_and_start(self.postgres)

    async def _stop_postgres(self) -> None:
        await pause(self.postgres.pids, _PAUSE_S)

    async def _kill_nats(self) -> None:
        await kill_and_start(self.server)

    async def _stop_nats(self) -> None:
        await pause(self.server.pids, _PAUSE_S)

    async def _cut(self) -> None:
        self.network.half_open(1.0)

    async def _nats_starts_last(self) -> None:
        """The sinks start first, and the server restarts before their readers have a message."""
        for sink in self.sinks:
            sink.kill()
        self.server.kill()
        for sink in self.sinks:
            sink.launch()
        await asyncio.to_thread(self.server.start)
        await kill_and_start(self.server)
        for sink in self.sinks:
            await asyncio.to_thread(sink.wait_until_up)

    def rows(self) -> int:
        """Rows that are committed now; 0 while the database is away."""
        with (
            contextlib.suppress(psycopg.Error),
            psycopg.connect(self.postgres.url(), connect_timeout=2) as connection,
        ):
            row = connection.execute("SELECT count(*) FROM battery").fetchone()
            return int(row[0]) if row is not None else 0
        return 0


async def through_faults(stage: Stage, *, events: int, faults: int) -> float:
    """Store and sink everything, with so many faults on the way.

    Returns:
        Seconds.

    Raises:
        TargetError: not every event became a row in time.
    """
    began = monotonic()
    filling = asyncio.create_task(fill(stage.server.url, 0, events))
    try:
        for number in range(1, faults + 1):
            await _rows(stage, events * number // (faults + 1))
            await stage.break_something()
        await filling
        await _rows(stage, events)
    finally:
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)
    return monotonic() - began


async def _rows(stage: Stage, wanted: int) -> None:
    async def there() -> bool:
        return await asyncio.to_thread(stage.rows) >= wanted

    await until_awaited(there, f"{wanted:,} rows", _SETTLE_TIMEOUT_S)


async def check(nats_url: str, database_url: str) -> dict[str, int]:
    """Read stream and table and compare them.

    Returns:
        Figures by name, of which `lost`, `doubled` and `wrong` are damage.
    """
    stored: dict[int, tuple[str, bytes]] = {}
    async for message in messages_of(nats_url):
        seq = message.metadata.sequence.stream
        stored[seq] = (message.subject.split(".")[2], message.data)
    rows: Counter[int] = Counter()
    wrong = 0
    with psycopg.connect(database_url) as connection:
        for seq, device, soc in connection.execute("SELECT stream_seq, device, soc FROM battery"):
            rows[seq] += 1
            there = stored.get(seq)
            wrong += there is None or there[0] != device or b'"soc":%d,' % soc not in there[1]
    return {
        "stored": len(stored),
        "rows": rows.total(),
        "lost": sum(seq not in rows for seq in stored),
        "doubled": sum(count - 1 for count in rows.values()),
        "wrong": wrong,
    }


async def run(options: argparse.Namespace) -> int:
    """One run.

    Returns:
        1 if an objective was missed, else 0.

    Raises:
        LoadtestError: it could not be run.
    """
    program = ["-c", "from gateway.cli import main; main()"]
    if options.control:
        program = [str(_BROKEN), options.control]
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="tidegate-sink-faults-") as name:
        directory = Path(name)
        with NatsServer(directory / "nats") as server, PostgresServer(directory / "pg") as postgres:
            await make_streams(server.url)
            with psycopg.connect(postgres.url(), autocommit=True) as connection:
                connection.execute(_TABLE)
            async with BadNetwork.before(postgres.port, delay_s=0.0, rng=rng) as network:
                url = postgres.url().replace(f":{postgres.port}/", f":{network.port}/")
                sinks = [
                    SinkServer(
                        directory / f"sink-{number}", nats_url=server.url, database_url=url,
                        table="battery", program=program,
                    )
                    for number in range(2)
                ]  # fmt: skip
                stage = Stage(sinks, server, postgres, network, rng)
                with contextlib.ExitStack() as stack:
                    for sink in sinks:
                        stack.enter_context(sink)
                    seconds = await through_faults(
                        stage, events=options.events, faults=options.faults
                    )
            found = await check(server.url, postgres.url())
    return _judge(options, stage, found, seconds)


def _judge(options: argparse.Namespace, stage: Stage, found: dict[str, int], seconds: float) -> int:
    report = Report()
    report.table(
        "Two sinks, one table" + (f", control {options.control}" if options.control else ""),
        ("", ""),
        [
            *((what, f"{count:,}") for what, count in found.items()),
            ("faults", ", ".join(f"{n} x {each}" for each, n in sorted(stage.done.items()))),
            ("seconds, seed", f"{seconds:.0f}, {options.seed}"),
        ],
    )
    damage = {what: found[what] for what in ("lost", "doubled", "wrong")}
    if options.control:
        total = sum(damage.values())
        report.verdict("damage that the checker finds", total, "more than 0", ok=total > 0)
    else:
        for what, count in damage.items():
            report.none(what, count)
    return report.status()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Every stored event is in the table once.")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--control", choices=CONTROLS, help="run a broken sink, to be found out")
    options = parser.parse_args()
    try:
        sys.exit(uvloop.run(run(options)))
    except LoadtestError as exc:
        sys.exit(f"faults-sink: {exc}")


if __name__ == "__main__":
    main()
