"""What a database can refuse is named, loses nothing, and is survived once it is mended."""

import os
import subprocess
import tempfile
from pathlib import Path

import psycopg
import pytest

from gateway.consumers.errors import TargetAway, TargetRefused, TargetSlow
from gateway.consumers.postgres import target as postgres
from gateway.consumers.postgres.target import PostgresTarget
from gateway.events.document import PostgresSink
from gateway.events.event import Event
from gateway.events.position import Position
from loadtest.servers.postgres import PostgresServer

CREATED = "2026-11-25T10:00:00Z"
SECRET = "s3cr3t-of-the-sink"
HBA = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"


@pytest.fixture(scope="module")
def guarded():
    """A server that asks for passwords, of everybody but its superuser."""
    with tempfile.TemporaryDirectory(prefix="tidegate-postgres-") as name:
        hba = Path(name) / "hba.conf"
        hba.write_text(HBA)
        hba.chmod(0o644)
        with PostgresServer(Path(name), hba_file=str(hba)) as server:
            run(
                server.url(),
                f"CREATE ROLE sink LOGIN PASSWORD '{SECRET}'",
                f"CREATE ROLE narrow LOGIN PASSWORD '{SECRET}' CONNECTION LIMIT 1",
            )
            yield server


@pytest.fixture
def tables(guarded):
    run(
        guarded.url(),
        "DROP TABLE IF EXISTS battery, tidegate_sink, tidegate_sink_owner",
        "CREATE TABLE battery (device text, n bigint, soc int)",
        postgres.BOOKKEEPING,
        "GRANT ALL ON battery, tidegate_sink, tidegate_sink_owner TO sink, narrow",
    )
    return guarded


def run(url, *statements):
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def of(user, server, password=SECRET):
    return psycopg.conninfo.make_conninfo(server.url(user=user), password=password)


def target(url, **changes):
    columns = {"device": "device", "n": "stream_seq", "soc": "data.soc"}
    wanted = {"name": "battery", "table": "battery", "columns": columns} | changes
    return PostgresTarget(PostgresSink.model_validate(wanted), url, owner="me")


async def refusal(wanted, kind=TargetRefused):
    with pytest.raises(kind) as caught:
        await wanted.open()
    assert SECRET not in str(caught.value)
    return str(caught.value)


def event(seq, data=b'{"soc":7}'):
    headers = b"NATS/1.0\r\nNats-Msg-Id:default:veh-1:o1:%d\r\n\r\n" % seq
    return Event("events.default.veh-1.battery.low", headers, data, seq, 10**18)


async def owned(wanted):
    await wanted.open()
    mine, position = await wanted.claim()
    assert mine
    if position is None:
        await wanted.begin(Position(CREATED, 0))


async def nothing_to_bury(rejected):
    raise AssertionError(rejected)


async def test_the_right_password(tables):
    wanted = target(of("sink", tables))
    await owned(wanted)
    await wanted.write([event(1)], Position(CREATED, 1), nothing_to_bury)
    assert run(tables.url(), "SELECT soc FROM battery") == [(7,)]
    await wanted.close()


async def test_a_wrong_password_is_refused_and_never_shown(tables):
    said = await refusal(target(of("sink", tables, password="wr0ng-passw0rd")))
    assert 'password authentication failed for user "sink"' in said
    assert "wr0ng-passw0rd" not in said


async def test_no_such_database_is_refused(tables):
    url = psycopg.conninfo.make_conninfo(of("sink", tables), dbname="nowhere")
    assert 'database "nowhere" does not exist' in await refusal(target(url))


@pytest.mark.parametrize(
    ("right", "changes"),
    [
        ("INSERT", {}),
        ("UPDATE", {"on_conflict": "update", "key": ["device"]}),
        ("SELECT", {"on_conflict": "update", "key": ["device"]}),
        ("SELECT", {"on_conflict": "nothing", "key": ["device"]}),
    ],
)
async def test_a_missing_right_is_named_at_the_start(tables, right, changes):
    run(tables.url(), f"REVOKE {right} ON battery FROM sink")
    said = await refusal(target(of("sink", tables), **changes))
    assert said.startswith("sink battery, table battery: ")
    assert f"{right} (device, n, soc)" in said or f"{right} (device)" in said


async def test_a_missing_right_to_one_column_is_named(tables):
    run(
        tables.url(),
        "REVOKE ALL ON battery FROM sink",
        "GRANT INSERT (device, n) ON battery TO sink",
    )
    assert "INSERT (soc)" in await refusal(target(of("sink", tables)))


async def test_a_right_that_is_revoked_while_it_runs_is_refused(tables):
    wanted = target(of("sink", tables))
    await owned(wanted)
    run(tables.url(), "REVOKE INSERT ON battery FROM sink")
    with pytest.raises(TargetRefused, match="permission denied for table battery"):
        await wanted.write([event(1)], Position(CREATED, 1), nothing_to_bury)
    await wanted.close()


async def test_tables_of_the_sink_that_may_not_be_made_are_refused(tables):
    run(tables.url(), "DROP TABLE tidegate_sink", "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    assert "tidegate sink --create" in await refusal(target(of("sink", tables)))


@pytest.mark.parametrize("bookkeeping", [True, False])
async def test_a_read_only_standby_is_refused_with_advice(tables, bookkeeping):
    if not bookkeeping:
        run(tables.url(), "DROP TABLE tidegate_sink, tidegate_sink_owner")
    run(tables.url(), "ALTER ROLE sink SET default_transaction_read_only = on")
    try:
        said = await refusal(target(of("sink", tables)))
    finally:
        run(tables.url(), "ALTER ROLE sink RESET default_transaction_read_only")
    assert "read-only" in said
    assert "target_session_attrs=read-write" in said


async def test_a_database_that_turns_read_only_while_it_runs_is_refused(tables):
    wanted = target(of("sink", tables))
    await owned(wanted)
    await wanted._connection.execute("SET default_transaction_read_only = on")
    with pytest.raises(TargetRefused, match="read-only"):
        await wanted.write([event(1)], Position(CREATED, 1), nothing_to_bury)
    await wanted.close()


async def test_no_connection_left_is_waited_for_and_none_stays_behind(tables):
    said = await refusal(target(of("narrow", tables)), TargetAway)
    assert 'too many connections for role "narrow"' in said
    left = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'narrow'"
    for _ in range(1_000):  # a backend ends a moment after its client
        if run(tables.url(), left) == [(0,)]:
            break
    assert run(tables.url(), left) == [(0,)]


async def test_a_statement_that_takes_too_long_asks_for_less(tables):
    run(
        tables.url(),
        "CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END $$",
        "CREATE TRIGGER slow BEFORE INSERT ON battery FOR EACH ROW EXECUTE FUNCTION slow()",
    )
    wanted = target(of("sink", tables))
    await owned(wanted)
    await wanted._connection.execute("SET statement_timeout = 100")
    with pytest.raises(TargetSlow, match="statement timeout"):
        await wanted.write(
            [event(seq) for seq in range(1, 51)], Position(CREATED, 50), nothing_to_bury
        )
    assert run(tables.url(), "SELECT count(*) FROM battery") == [(0,)]
    await wanted.close()


@pytest.fixture
def small_disk(guarded):
    """A tablespace on a file system of 8 MiB."""
    if os.geteuid() != 0:
        pytest.skip("A FULL DISK WAS NOT TESTED: only root can mount a small file system")
    with tempfile.TemporaryDirectory(prefix="tidegate-small-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8m,mode=777", "tmpfs", name],
            capture_output=True,
            text=True,
            check=False,
        )
        if mounted.returncode:
            pytest.skip(f"A FULL DISK WAS NOT TESTED: mount: {mounted.stderr.strip()}")
        try:
            space = folder / "space"
            space.mkdir()
            space.chmod(0o777)
            subprocess.run(["chown", "nobody", str(space)], check=True)
            run(guarded.url(), f"CREATE TABLESPACE small LOCATION '{space}'")
            yield folder
            run(guarded.url(), "DROP TABLE battery", "DROP TABLESPACE small")
        finally:
            subprocess.run(["umount", "-l", name], check=True)


async def test_a_full_disk_is_waited_for_and_nothing_is_half_written(tables, small_disk):
    run(tables.url(), "ALTER TABLE battery ALTER COLUMN device TYPE text")
    run(tables.url(), "ALTER TABLE battery SET TABLESPACE small")
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (7 << 20))
    wanted = target(of("sink", tables))
    await owned(wanted)
    many = [event(seq) for seq in range(1, 40_001)]
    with pytest.raises(TargetAway, match="No space left on device"):
        await wanted.write(many, Position(CREATED, 40_000), nothing_to_bury)
    assert run(tables.url(), "SELECT count(*) FROM battery") == [(0,)]
    assert run(tables.url(), "SELECT position FROM tidegate_sink") == [(0,)]
    ballast.unlink()
    await wanted.write(many, Position(CREATED, 40_000), nothing_to_bury)
    assert run(tables.url(), "SELECT count(*) FROM battery") == [(40_000,)]
    await wanted.close()
