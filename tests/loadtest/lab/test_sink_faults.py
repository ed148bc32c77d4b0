"""Fault runs of sinks, short: an honest sink is clean, and each broken one is found out."""

import asyncio
import tempfile
from pathlib import Path

import psycopg
import pytest

from loadtest.lab.sink_checker import Findings, check
from loadtest.lab.sink_faults import staged, through_faults
from loadtest.servers.eventstream import fill, make_streams
from support.servers import nats_server


async def findings(*, events, faults=0, kinds=None, control=None):
    """What the checker finds after a run. `kinds` are words of the faults that are wanted."""
    # Not below pytest's folder, which PostgreSQL's user may not enter.
    with tempfile.TemporaryDirectory(prefix="tidegate-sink-faults-") as name:
        async with staged(Path(name), seed=5, control=control) as stage:
            if kinds is not None:
                stage.faults.only(set(kinds))
            await through_faults(stage, events=events, faults=faults)
            assert sum(stage.faults.done.values()) == faults
            for sink in stage.sinks:
                await asyncio.to_thread(sink.stop)
            return await check(stage.server.url, stage.postgres.url())


QUICK = ("kill -9 sink", "kill -9 PostgreSQL", "connections cut")


@pytest.mark.long  # `make faults-sink` is the whole of it; the control below stays in every run
async def test_an_honest_sink_loses_and_doubles_nothing():
    found = await findings(events=30_000, faults=3, kinds=QUICK)
    assert found.clean
    assert (found.stored, found.rows, found.letters) == (30_000, 29_995, 5)


@pytest.mark.long
async def test_without_the_lock_two_processes_write_the_same_events():
    found = await findings(events=5_000, control="no-lock")
    assert found.doubled > 0


@pytest.mark.long
async def test_a_position_that_is_committed_apart_doubles_rows():
    found = await findings(
        events=60_000,
        faults=4,
        kinds=["kill -9 sink", "kill -9 PostgreSQL"],
        control="position-apart",
    )
    assert found.doubled > 0


@pytest.mark.long
async def test_each_kind_of_fault_leaves_it_clean():
    found = await findings(events=300_000, faults=10)
    assert found.clean
    assert found.stored == 300_000


async def test_the_checker_finds_what_is_lost_doubled_and_wrong(tmp_path, database):
    with nats_server(tmp_path / "nats") as server:
        await make_streams(server.url)
        await fill(server.url, 0, 5)
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("CREATE TABLE battery (device text, stream_seq bigint, soc int)")
            for device, seq, soc in (
                ("veh-0", 1, 0), ("veh-1", 2, 1), ("veh-1", 2, 1), ("veh-2", 3, 9), ("veh-7", 9, 0),
            ):  # fmt: skip
                connection.execute("INSERT INTO battery VALUES (%s, %s, %s)", (device, seq, soc))
        assert await check(server.url, database) == Findings(
            stored=5, rows=5, letters=0, lost=2, doubled=1, wrong=2
        )
