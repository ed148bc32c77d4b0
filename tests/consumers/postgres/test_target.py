"""The PostgreSQL target against a real server."""

import json

import psycopg
import pytest

from gateway.consumers.errors import NotOwner, TargetAway, TargetRefused
from gateway.consumers.postgres.target import PostgresTarget
from gateway.events.document import PostgresSink
from gateway.events.event import Event
from gateway.events.position import Position

CREATED = "2026-11-25T10:00:00Z"
COLUMNS_DDL = "at timestamptz, n bigint, soc int"
TABLE = f"CREATE TABLE battery (device text NOT NULL, {COLUMNS_DDL} CHECK (soc < 101))"
KEYED = f"CREATE TABLE battery (device text PRIMARY KEY, {COLUMNS_DDL} CHECK (soc < 101))"
COLUMNS = {"device": "device", "at": "time", "n": "stream_seq", "soc": "data.soc"}


def event(stream_seq, data, device="veh-1"):
    headers = (
        f"NATS/1.0\r\nNats-Msg-Id:default:{device}:o1:{stream_seq}\r\nce-id:o1:{stream_seq}\r\n"
        "ce-time:2026-11-25T10:00:00.5Z\r\n\r\n"
    ).encode()
    text = data if isinstance(data, bytes) else json.dumps(data).encode()
    return Event(f"events.default.{device}.battery.low", headers, text, stream_seq, 10**18)


def events(*socs, first=1):
    return [event(first + place, {"soc": soc}) for place, soc in enumerate(socs)]


def sink(**changes):
    wanted = {"name": "battery", "table": "battery", "columns": COLUMNS} | changes
    return PostgresSink.model_validate(wanted)


def run(url, *statements):
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


class Cemetery:
    def __init__(self):
        self.rejected = []

    async def __call__(self, rejected):
        self.rejected += rejected


@pytest.fixture
async def bury():
    return Cemetery()


@pytest.fixture
async def make(database):
    opened = []

    async def build(wanted=None, owner="me", table=TABLE):
        if table:
            run(database, table)
        target = PostgresTarget(wanted or sink(), database, owner=owner)
        opened.append(target)
        await target.open()
        return target

    yield build
    for target in opened:
        await target.close()


async def owned(target):
    mine, position = await target.claim()
    assert mine
    if position is None:
        position = Position(CREATED, 0)
        await target.begin(position)
    return position


def after(seq):
    return Position(CREATED, seq, f"id-{seq}")


async def test_rows_and_position_are_written_together(make, bury, database):
    target = await make()
    await owned(target)
    assert await target.write(events(7, 8), after(2), bury) == 0
    assert run(database, "SELECT device, n, soc, at FROM battery ORDER BY n") == [
        ("veh-1", n, soc, at)
        for n, soc, at in zip(
            (1, 2),
            (7, 8),
            [row[0] for row in run(database, "SELECT at FROM battery")],
            strict=True,
        )
    ]
    assert run(database, "SELECT position, message_id, owner FROM tidegate_sink") == [
        (2, "id-2", "me")
    ]


async def test_the_next_owner_goes_on_at_the_position(make, bury):
    first = await make()
    await owned(first)
    await first.write(events(7), after(1), bury)
    await first.release()
    second = await make(owner="other", table=None)
    assert await second.claim() == (True, after(1))


async def test_a_second_process_stands_by(make):
    await owned(await make())
    second = await make(owner="other", table=None)
    assert await second.claim() == (False, None)


async def test_an_owner_that_lost_the_sink_writes_nothing(make, bury, database):
    first = await make()
    await owned(first)
    await first.write(events(7), after(1), bury)
    run(database, "UPDATE tidegate_sink_owner SET beat_at = beat_at - interval '1 minute'")
    second = await make(owner="other", table=None)
    assert (await second.claim())[0]
    with pytest.raises((NotOwner, TargetAway)):
        await first.write(events(8, first=2), after(2), bury)
    with pytest.raises(NotOwner):
        await first.beat()
    await second.write(events(9, first=2), after(2), bury)
    assert run(database, "SELECT soc FROM battery ORDER BY n") == [(7,), (9,)]


async def test_a_position_moved_by_somebody_else_stops_the_write(make, bury, database):
    target = await make()
    await owned(target)
    run(database, "UPDATE tidegate_sink SET position = 41")
    with pytest.raises(NotOwner, match="41"):
        await target.write(events(7), after(1), bury)
    assert run(database, "SELECT count(*) FROM battery") == [(0,)]


@pytest.mark.parametrize("bad", [{0}, {9}, {3, 4}, {0, 5, 9}, set(range(10)), {1, 2, 3}])
async def test_rows_that_violate_a_constraint_are_buried_and_the_others_are_in(
    make, bury, database, bad
):
    target = await make()
    await owned(target)
    batch = events(*(200 if place in bad else place for place in range(10)))
    assert await target.write(batch, after(10), bury) == len(bad)
    assert run(database, "SELECT soc FROM battery ORDER BY n") == [
        (place,) for place in range(10) if place not in bad
    ]
    assert [each.event.stream_seq - 1 for each in bury.rejected] == sorted(bad)
    assert {each.error for each in bury.rejected} == {"check_violation"}
    assert "battery_soc_check" in bury.rejected[0].detail


@pytest.mark.parametrize("deferral", ["", "DEFERRABLE INITIALLY DEFERRED"])
async def test_a_constraint_that_names_no_line_is_found_by_bisection(
    make, bury, database, deferral
):
    run(
        database,
        "CREATE TABLE known (id int PRIMARY KEY)",
        "INSERT INTO known SELECT generate_series(0, 100)",
    )
    target = await make(
        sink(columns={"n": "stream_seq", "soc": "data.soc"}),
        table=f"CREATE TABLE battery (n bigint, soc int REFERENCES known {deferral})",
    )
    await owned(target)
    assert await target.write(events(1, 500, 2, 600, 3), after(5), bury) == 2
    assert run(database, "SELECT soc FROM battery ORDER BY n") == [(1,), (2,), (3,)]
    assert [each.error for each in bury.rejected] == ["foreign_key_violation"] * 2


async def test_dead_letters_are_stored_before_the_position_moves(make, database):
    target = await make()
    await owned(target)

    async def cannot(_rejected):
        raise TargetAway("the stream is away")

    with pytest.raises(TargetAway):
        await target.write(events(200), after(1), cannot)
    assert run(database, "SELECT position FROM tidegate_sink") == [(0,)]


async def test_what_does_not_fit_its_column_never_reaches_the_database(make, bury):
    target = await make()
    await owned(target)
    await target.write(events("seven", 7), after(2), bury)
    (only,) = bury.rejected
    assert (only.error, only.detail) == ("column", 'column soc: "seven" is not an integer')


async def test_update_keeps_the_newest_of_a_key_and_never_an_older_one(make, bury, database):
    wanted = sink(on_conflict="update", key=["device"])
    target = await make(wanted, table=KEYED)
    await owned(target)
    await target.write(events(1, 2, 3), after(3), bury)
    assert run(database, "SELECT n, soc FROM battery") == [(3, 3)]
    run(database, "UPDATE battery SET n = 100, soc = 50")
    await target.write([*events(4, first=4), event(5, {"soc": 9}, "veh-2")], after(5), bury)
    assert run(database, "SELECT device, n, soc FROM battery ORDER BY device") == [
        ("veh-1", 100, 50),
        ("veh-2", 5, 9),
    ]


async def test_nothing_keeps_the_first_of_a_key(make, bury, database):
    wanted = sink(on_conflict="nothing", key=["device"])
    target = await make(wanted, table=KEYED)
    await owned(target)
    assert await target.write(events(500, 1, 2), after(3), bury) == 1
    await target.write(events(4, first=4), after(4), bury)
    assert run(database, "SELECT n, soc FROM battery") == [(2, 1)]


@pytest.mark.parametrize(
    ("changes", "table", "said"),
    [
        ({"columns": {"sock": "data.soc"}}, "CREATE TABLE battery (soc int)", "is it soc?"),
        ({"columns": {"soc": "device"}}, "CREATE TABLE battery (soc int)", "cannot hold device"),
        (
            {"columns": {"soc": "data.soc"}},
            "CREATE TABLE battery (soc int, name text NOT NULL)",
            "column name: it is NOT NULL",
        ),
        (
            {"columns": {"soc": {"constant": "x"}}},
            "CREATE TABLE battery (soc int)",
            "the constant does not fit",
        ),
        (
            {"columns": {"soc": "data.soc"}},
            "CREATE TABLE battery (soc int GENERATED ALWAYS AS IDENTITY)",
            "the table generates its value",
        ),
        ({}, None, "no table battery"),
    ],
)
async def test_a_sink_that_does_not_fit_its_table_is_refused(make, changes, table, said):
    with pytest.raises(TargetRefused, match=said):
        await make(sink(**changes), table=table)


async def test_a_wrong_user_is_refused_and_an_absent_server_is_waited_for(database):
    wrong = PostgresTarget(
        sink(), psycopg.conninfo.make_conninfo(database, user="nobody_such"), owner="me"
    )
    with pytest.raises(TargetRefused, match="nobody_such"):
        await wrong.open()
    away = PostgresTarget(sink(), "postgresql://postgres@127.0.0.1:1/x", owner="me")
    with pytest.raises(TargetAway):
        await away.open()


async def test_a_rebuild_wants_an_empty_table(make, bury, database):
    target = await make()
    await owned(target)
    await target.write(events(7), after(1), bury)
    with pytest.raises(TargetRefused, match="holds rows"):
        await target.forget()
    run(database, "TRUNCATE battery")
    await target.forget()
    assert await target.claim() == (True, None)
