"""`tidegate sink` as processes: one writes, the other stands by, whatever happens to the first."""

import asyncio
import json
import os
import signal
import urllib.request
from contextlib import asynccontextmanager

import psycopg
import pytest

from gateway.consumers import sink
from gateway.consumers.postgres import ownership
from gateway.consumers.target import BEAT_S
from loadtest.servers.gateway import SinkServer
from support.eventstream import make_streams, publish_events
from support.servers import nats_server
from support.waiting import eventually

TABLE = """\
CREATE TABLE battery (
    device text, at timestamptz, stream_seq bigint, soc int, voltage double precision
)"""
GATE = """\
CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NEW; END $$;
CREATE TRIGGER gate BEFORE INSERT ON battery FOR EACH ROW WHEN (NEW.soc = 50)
EXECUTE FUNCTION gate()"""
IN_COPY = """\
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND query LIKE 'COPY%' AND wait_event_type = 'Lock'"""


@pytest.fixture
async def stream(tmp_path):
    with nats_server(tmp_path / "nats") as server:
        await make_streams(server)
        yield server


@pytest.fixture
async def session(database):
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        await connection.execute(TABLE)
        yield connection


async def all_of(connection, query):
    return await (await connection.execute(query)).fetchall()


async def sequences(session):
    query = "SELECT stream_seq FROM battery ORDER BY stream_seq"
    return [row[0] for row in await all_of(session, query)]


@pytest.fixture
def process(stream, database, tmp_path):
    started = []

    def make(name="one"):
        server = SinkServer(
            tmp_path / name, nats_url=stream.url, database_url=database, table="battery",
            linger_ms=5,
        )  # fmt: skip
        started.append(server)
        return server

    yield make
    for server in started:
        server.stop()


def status(server):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/status", timeout=5) as answer:
        return json.load(answer)["sinks"]


def pages(server):
    """All pages of its ops port, one behind the other."""
    shown = ""
    for page in ("status", "metrics", "healthz", "readyz"):
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/{page}", timeout=5) as answer:
            shown += answer.read().decode()
    return shown


def state_of(server, name="battery"):
    try:
        return status(server)[name]["state"]
    except OSError:
        return None


@asynccontextmanager
async def gate_closed(session):
    """A COPY stops at the row with `soc = 50` until the block ends."""
    await session.execute("SELECT pg_advisory_lock(42)")
    try:
        yield
    finally:
        await session.execute("SELECT pg_advisory_unlock(42)")


async def in_copy(session):
    async def found():
        return await all_of(session, IN_COPY) == [(1,)]

    await eventually(found, "a COPY that waits")


async def written(session, wanted):
    async def found():
        return len(await sequences(session)) >= wanted

    await eventually(found, f"{wanted} rows")


def test_a_takeover_takes_less_than_ten_seconds():
    """A lease of a dead owner, a claim of its successor, and a second to end the backend."""
    assert ownership.LEASE_S + BEAT_S + sink._CLAIM_S + 1.0 < 10


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.long)]
)
async def test_the_second_takes_over_from_one_that_stops_in_the_middle_of_a_copy(
    stream, session, process, number
):
    await session.execute(GATE)
    first, second = process("one"), process("two")
    async with gate_closed(session):
        await asyncio.to_thread(first.start)
        await publish_events(stream, [{"soc": n} for n in range(100)])
        await in_copy(session)
        await asyncio.to_thread(second.start)
        await eventually(lambda: state_of(second) == "standing_by")
        os.kill(first.pids[0], number)
    await written(session, 100)
    assert state_of(second) == "running"
    if number is signal.SIGSTOP:
        os.kill(first.pids[0], signal.SIGCONT)
        await eventually(lambda: state_of(first) == "standing_by")
    await publish_events(stream, [{"soc": 7}], first=101)
    await written(session, 101)
    assert await sequences(session) == list(range(1, 102))


async def test_sigterm_in_the_middle_of_a_copy_ends_the_process_and_loses_nothing(
    stream, session, process
):
    await session.execute(GATE)
    first = process()
    async with gate_closed(session):
        await asyncio.to_thread(first.start)
        await publish_events(stream, [{"soc": n} for n in range(100)])
        await in_copy(session)
        await asyncio.to_thread(first.stop)
        assert first._process.returncode == 0
        assert await sequences(session) == []
    # It gave up its ownership, so its successor need not wait for the lease to end.
    assert await all_of(session, "SELECT name FROM tidegate_sink_owner") == []
    await asyncio.to_thread(process("again").start)
    await written(session, 100)
    assert await sequences(session) == list(range(1, 101))


async def test_a_sink_that_is_stuck_does_not_hold_up_the_others(stream, session, process, database):
    await session.execute("CREATE TABLE door (n bigint)")
    server = process()
    (server.directory / "events.toml").write_text(
        '[[sink]]\nname = "battery"\ntable = "battery"\n[sink.columns]\nstream_seq = "stream_seq"\n'
        '[[sink]]\nname = "door"\ntable = "door"\n[sink.columns]\nn = "stream_seq"\n'
    )
    async with await psycopg.AsyncConnection.connect(database) as other:
        await asyncio.to_thread(server.start)
        await eventually(
            lambda: state_of(server) == state_of(server, "door") == "running", "both run"
        )
        await other.execute("LOCK TABLE door IN ACCESS EXCLUSIVE MODE")
        await publish_events(stream, [{"soc": n} for n in range(20)])
        await written(session, 20)
        await eventually(lambda: status(server)["battery"]["position"] == 20)
        assert status(server)["door"]["position"] == 0
        await other.rollback()
    await eventually(lambda: status(server)["door"]["position"] == 20)
    assert await all_of(session, "SELECT count(*) FROM door") == [(20,)]


async def test_it_waits_for_a_database_and_a_stream_that_come_later(tmp_path, session, database):
    """No gateway, no stream, no NATS: it reports that, and starts to work once they are there."""
    with nats_server(tmp_path / "nats") as server:
        sink_process = SinkServer(
            tmp_path / "sink", nats_url=server.url, database_url=database, table="battery",
            linger_ms=5,
        )  # fmt: skip
        try:
            await asyncio.to_thread(sink_process.start)
            await eventually(lambda: "stream" in (status(sink_process)["battery"]["trouble"] or ""))
            await make_streams(server)
            await publish_events(server, [{"soc": 1}])
            await written(session, 1)
        finally:
            sink_process.stop()


async def test_pages_and_log_hold_no_secret(stream, session, process, database):
    secret = "pass-that-nobody-sees"
    server = process()
    url = psycopg.conninfo.make_conninfo(database, password=secret)
    (server.directory / "database").write_text(url)
    await asyncio.to_thread(server.start)
    await publish_events(stream, [{"soc": 1}])
    await written(session, 1)
    shown = await asyncio.to_thread(pages, server)
    await session.execute("ALTER TABLE battery DROP COLUMN soc")
    await publish_events(stream, [{"soc": 2}], first=2)
    await eventually(lambda: state_of(server) == "refused")
    assert "tidegate_sink_rows_total" in shown
    assert secret not in shown + (server.directory / "log").read_text()
