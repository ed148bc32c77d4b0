"""Fault runs of sinks: `python -m loadtest.lab.sink_faults`. Two sinks, one table, everything dies.

    make faults-sink                                      # a million events, 20 random faults
    make faults-sink ARGS="--events 50000 --faults 5 --seed 7"
    make faults-sink ARGS="--control no-lock"             # a broken sink: must be found out

The checker reads stream, dead letters and table itself: each stored event is a row or a letter,
once and unchanged. One event in 5,000 violates a deferred constraint. A run is its seed: the same
seed picks the same faults in the same order.
"""

import argparse
import asyncio
import contextlib
import json
import random
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final

import psycopg

from loadtest.errors import TargetError
from loadtest.lab.fault_command import main_of_faults, report_faults
from loadtest.lab.fault_mix import FaultMix, Position, flow_through
from loadtest.lab.mishaps import kill_and_start, pause
from loadtest.lab.sink_checker import check
from loadtest.servers.backends import NatsServer
from loadtest.servers.eventstream import make_streams, plain
from loadtest.servers.gateway import SinkServer
from loadtest.servers.network import BadNetwork
from loadtest.servers.postgres import PostgresServer
from loadtest.waiting import until_awaited

_SETTLE_TIMEOUT_S: Final = 300.0
_PAUSE_S: Final = 4.0
_LONG_PAUSE_S: Final = 12.0
"""Longer than a lease: the other process takes over meanwhile."""
_COPY_TIMEOUT_S: Final = 20.0
_WHEREVER_S: Final = 0.3
"""A fault is awaited at a commit. It comes up to this much later, anywhere in the next batch."""
_BROKEN: Final = Path(__file__).parents[2] / "tests" / "support" / "broken_sink.py"
CONTROLS: Final = ("no-lock", "position-apart")
_POISON_EVERY: Final = 5_000
# The constraint is checked at the commit, which must not fail a whole batch: of all events with
# this `soc`, one is a row and the others are letters.
_POISON: Final = b'{"soc":2000,"voltage":1.5}'
_TABLE: Final = """\
CREATE TABLE battery (
    device text, at timestamptz, stream_seq bigint, soc int, voltage float8,
    CONSTRAINT sane EXCLUDE (soc WITH =) WHERE (soc > 1000) DEFERRABLE INITIALLY DEFERRED
)"""
_IN_COPY: Final = """\
SELECT s.owner FROM pg_stat_activity a, tidegate_sink s
WHERE a.application_name = 'tidegate-sink-battery-data' AND a.state = 'active'
AND a.query LIKE 'COPY%'"""


def payload(number: int) -> bytes:
    """A small event; now and then one that the table's constraint refuses."""
    return plain(number) if (number + 1) % _POISON_EVERY else _POISON


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
        kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "kill -9 sink": self._kill_sink,
            "SIGSTOP sink": self._stop_sink,
            "SIGSTOP sink in COPY": self._stop_sink_in_copy,
            "kill -9 PostgreSQL": self._kill_postgres,
            "PostgreSQL restarted in COPY": self._restart_postgres_in_copy,
            "SIGSTOP PostgreSQL": self._stop_postgres,
            "kill -9 NATS": self._kill_nats,
            "SIGSTOP NATS": self._stop_nats,
            "connections cut": self._cut,
            "NATS restarts before the first message": self._nats_starts_last,
        }
        self.faults = FaultMix(
            {name: partial(self._wherever, fault) for name, fault in kinds.items()}, rng
        )

    async def _wherever(self, fault: Callable[[], Awaitable[None]]) -> None:
        await asyncio.sleep(self._rng.uniform(0, _WHEREVER_S))
        await fault()

    async def _kill_sink(self) -> None:
        await kill_and_start(self._rng.choice(self.sinks))

    async def _stop_sink(self) -> None:
        await pause([self._rng.choice(self.sinks).pids[0]], _LONG_PAUSE_S)

    async def _stop_sink_in_copy(self) -> None:
        """Stop the process which owns the sink while its COPY runs."""
        owner = await self._owner_in_copy()
        pid = int(owner.rsplit("-", 2)[1])  # <host>-<pid>-<random>
        await pause([pid], _LONG_PAUSE_S)

    async def _kill_postgres(self) -> None:
        await kill_and_start(self.postgres)

    async def _restart_postgres_in_copy(self) -> None:
        await self._owner_in_copy()
        await asyncio.to_thread(self.postgres.stop)
        await asyncio.to_thread(self.postgres.start)

    async def _stop_postgres(self) -> None:
        await pause(self.postgres.pids, _PAUSE_S)

    async def _kill_nats(self) -> None:
        await kill_and_start(self.server)

    async def _stop_nats(self) -> None:
        await pause([self.server.pids[0]], _PAUSE_S)

    async def _cut(self) -> None:
        self.network.half_open(1.0)

    async def _nats_starts_last(self) -> None:
        """Readers are made before the server that restarts under them gives a first message."""
        for sink in self.sinks:
            sink.kill()
        self.server.kill()
        for sink in self.sinks:
            sink.launch()
        await asyncio.to_thread(self.server.start)
        self.server.kill()
        await asyncio.to_thread(self.server.start)
        for sink in self.sinks:
            await asyncio.to_thread(sink.wait_until_up)

    async def _owner_in_copy(self) -> str:
        """Wait for the moment in which a COPY runs.

        Raises:
            TargetError: none was seen in time.
        """
        deadline = monotonic() + _COPY_TIMEOUT_S
        while monotonic() < deadline:
            with contextlib.suppress(psycopg.Error):
                async with await psycopg.AsyncConnection.connect(
                    self.postgres.url(), autocommit=True
                ) as connection:
                    while monotonic() < deadline:
                        row = await (await connection.execute(_IN_COPY)).fetchone()
                        if row is not None:
                            return str(row[0])
            await asyncio.sleep(0.1)
        raise TargetError(f"no COPY was seen in {_COPY_TIMEOUT_S:.0f} s")

    def position(self) -> int:
        """The stream sequence up to which everything is committed, 0 while the database is away."""
        with (
            contextlib.suppress(psycopg.Error),
            psycopg.connect(self.postgres.url(), connect_timeout=2) as connection,
        ):
            row = connection.execute("SELECT position FROM tidegate_sink").fetchone()
            return int(row[0]) if row is not None else 0
        return 0


async def through_faults(stage: Stage, *, events: int, faults: int) -> float:
    """Store and sink everything, with so many faults on the way.

    Returns:
        Seconds.

    Raises:
        TargetError: not every event was processed in time.
    """
    began = monotonic()
    await flow_through(
        stage.faults, Position(stage.position, stage.faults),
        url=stage.server.url, events=events, faults=faults, payload=payload,
    )  # fmt: skip
    for sink in stage.sinks:
        # A broken sink may still write what the other one has committed.
        done = partial(_in, sink, ("running", "standing_by"), events)
        await until_awaited(done, "a sink at the end of the stream", _SETTLE_TIMEOUT_S)
    return monotonic() - began


async def _in(sink: SinkServer, states: Sequence[str], position: int = 0) -> bool:
    """Whether the sink is in one of these states, and if it runs, as far as that."""

    def asked() -> bool:
        with contextlib.suppress(OSError):
            url = f"http://127.0.0.1:{sink.port}/status"
            with urllib.request.urlopen(url, timeout=2) as answer:
                found = json.load(answer)["sinks"]["battery"]
            done = found["state"] != "running" or found["position"] >= position
            return found["state"] in states and done
        return False

    return await asyncio.to_thread(asked)


@contextlib.asynccontextmanager
async def staged(directory: Path, *, seed: int, control: str | None) -> AsyncIterator[Stage]:
    """Everything started: two sinks, honest ones or of a control, and what they need."""
    rng = random.Random(seed)
    # Without the lock there is no owner, so both run.
    states = ("running",) if control == "no-lock" else ("running", "standing_by")
    postgres = PostgresServer(directory / "pg")
    program = [str(_BROKEN), control] if control else ["-c", "from gateway.cli import main; main()"]
    with NatsServer(directory / "nats") as server, postgres:
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
            with contextlib.ExitStack() as stack:
                for sink in sinks:
                    # Not one after the other: a sink is up once its database answers, and that is
                    # behind the network, which this very loop carries.
                    sink.launch()
                    stack.callback(sink.stop)
                for sink in sinks:
                    await until_awaited(partial(_in, sink, states), "a sink that is ready", 30.0)
                yield Stage(sinks, server, postgres, network, rng)


async def run(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="tidegate-sink-faults-") as name:
        async with staged(Path(name), seed=options.seed, control=options.control) as stage:
            seconds = await through_faults(stage, events=options.events, faults=options.faults)
            for sink in stage.sinks:
                await asyncio.to_thread(sink.stop)
            found = await check(stage.server.url, stage.postgres.url())
            done = dict(stage.faults.done)
    counted = {"events stored": found.stored, "rows": found.rows, "dead letters": found.letters}
    damage = {kind: getattr(found, kind) for kind in ("lost", "doubled", "wrong")}
    return report_faults(options, "Two sinks, one table", counted, damage, done, seconds)


def main() -> None:
    """The command line."""
    main_of_faults(
        "faults-sink",
        "Every stored event is in the table once.",
        run,
        events=1_000_000,
        controls=CONTROLS,
    )


if __name__ == "__main__":
    main()
