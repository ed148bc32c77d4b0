"""A sink between a real nats-server and a real PostgreSQL."""

import asyncio
import contextlib
import json
import math
import random
import shutil
import time
from contextlib import asynccontextmanager

import psycopg
import pytest

from gateway.consumers.postgres import target as postgres
from gateway.consumers.postgres.target import PostgresTarget
from gateway.consumers.sink import SinkRunner, State
from gateway.events.document import PostgresSink
from gateway.events.errors import StreamReplaced, StreamWentBack
from gateway.sinks import own_readings
from gateway.stream.reading.replay import ReplayFilter, replay
from support.eventstream import letters, linked, make_streams, publish_events
from support.servers import nats_server
from support.waiting import eventually, within

TABLE = "CREATE TABLE battery (device text, n bigint, soc int CHECK (soc < 101))"


class Counts:
    def __init__(self):
        self.rows = self.buried = self.repeats = self.lost = 0
        self.errors = []

    def written(self, _sink, events, buried, _took_s):
        self.rows += len(events) - buried
        self.buried += buried

    def repeated(self, _sink, _events, error, _took_s):
        self.repeats += 1
        self.errors.append(error)

    def expired(self, _sink, sequences):
        self.lost += sequences


@pytest.fixture
async def stream(tmp_path):
    with nats_server(tmp_path / "nats") as server:
        await make_streams(server)
        yield server


@pytest.fixture
def table(database):
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLE)
    return database


def wanted(**changes):
    columns = {"device": "device", "n": "stream_seq", "soc": "data.soc"}
    base = {"name": "battery", "table": "battery", "columns": columns, "linger_ms": 5}
    return PostgresSink.model_validate(base | changes)


def runner_of(link, url, owner="me", **changes):
    sink = wanted(**changes)
    return SinkRunner(
        sink, PostgresTarget(sink, url, owner=owner), link,
        reading_of=own_readings([sink], link, random.Random(1)),
        observer=Counts(), rng=random.Random(1), wall_clock=time.time,
    )  # fmt: skip


@asynccontextmanager
async def running(runner):
    task = asyncio.create_task(runner.run())
    yield task
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await within(task)


def rows(url, query="SELECT soc FROM battery ORDER BY n"):
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute(query).fetchall()]


async def written(url, count):
    await eventually(lambda: len(rows(url)) >= count, f"{count} rows")
    return rows(url)


async def test_events_become_rows_and_a_restart_goes_on_behind_them(stream, table):
    await publish_events(stream, [{"soc": n} for n in range(50)])
    async with linked(stream) as link:
        async with running(runner_of(link, table)) as _task:
            assert await written(table, 50) == list(range(50))
        await publish_events(stream, [{"soc": 77}], first=51)
        second = runner_of(link, table, owner="another")
        async with running(second):
            assert (await written(table, 51))[-1] == 77
            await eventually(lambda: second._observer.rows == 1)  # counted after the commit


async def test_a_poison_row_is_a_letter_and_the_others_are_in(stream, table):
    await publish_events(stream, [{"soc": 1}, {"soc": 500}, {"soc": "x"}, {"soc": 4}])
    async with linked(stream) as link, running(runner_of(link, table)):
        assert await written(table, 2) == [1, 4]
    first, second = await letters(stream)
    subject, headers, payload = first
    assert subject == "deadletters.default.veh-1.sink.battery"
    assert payload == b'{"soc": 500}'
    assert headers["Nats-Msg-Id"] == "default:veh-1:sink/battery:2"
    assert headers["ce-id"] == "o1:2"
    assert (headers["Tidegate-Stage"], headers["Tidegate-Error"]) == ("sink", "check_violation")
    assert "battery_soc_check" in headers["Tidegate-Detail"]
    assert second[1]["Tidegate-Error"] == "column"


async def test_now_leaves_the_past_alone(stream, table):
    await publish_events(stream, [{"soc": 1}])
    async with linked(stream) as link:
        runner = runner_of(link, table, **{"from": "now"})
        async with running(runner):
            await eventually(lambda: runner.state is State.RUNNING)
            await publish_events(stream, [{"soc": 2}], first=2)
            assert await written(table, 1) == [2]


async def test_only_the_types_that_it_names(stream, table):
    await publish_events(stream, [{"soc": 1}], message_type="battery.low")
    await publish_events(stream, [{"soc": 2}], first=2, message_type="door.open")
    await publish_events(stream, [{"soc": 3}], first=3, message_type="battery.full")
    async with linked(stream) as link, running(runner_of(link, table, types=["battery."])):
        assert await written(table, 2) == [1, 3]


async def test_a_second_process_takes_over_from_one_that_stops(stream, table):
    async with linked(stream) as link:
        standby = runner_of(link, table, owner="standby")
        async with running(runner_of(link, table)):
            await publish_events(stream, [{"soc": 1}])
            await written(table, 1)
            async with running(standby) as _task:
                await eventually(lambda: standby.state is State.STANDING_BY)
        async with running(standby):
            await publish_events(stream, [{"soc": 2}], first=2)
            assert await written(table, 2) == [1, 2]


async def test_a_stream_made_anew_stops_the_sink_with_instructions(stream, table):
    await publish_events(stream, [{"soc": 1}])
    async with linked(stream) as link:
        async with running(runner_of(link, table)):
            await written(table, 1)
        client = await link.wait_up()
        for name in ("EVENTS", "DEADLETTERS"):
            await client.jetstream().delete_stream(name)
        await make_streams(stream)
        with pytest.raises(StreamReplaced, match="--rebuild"):
            await within(runner_of(link, table, owner="again").run())


async def test_other_messages_under_the_same_sequences_stop_the_sink(stream, table):
    await publish_events(stream, [{"soc": 1}])
    async with linked(stream) as link:
        async with running(runner_of(link, table)):
            await written(table, 1)
        with psycopg.connect(table, autocommit=True) as connection:
            connection.execute("UPDATE tidegate_sink SET message_id = 'default:veh-1:o9:9'")
        with pytest.raises(StreamWentBack, match="o9:9"):
            await within(runner_of(link, table, owner="again").run())


async def test_events_that_expired_unread_are_counted(stream, table):
    await publish_events(stream, [{"soc": 1}])
    async with linked(stream) as link:
        async with running(runner_of(link, table)):
            await written(table, 1)
        await publish_events(stream, [{"soc": n} for n in range(2, 6)], first=2)
        client = await link.wait_up()
        await client.jetstream().purge_stream("EVENTS", seq=4)
        runner = runner_of(link, table, owner="again")
        async with running(runner):
            assert await written(table, 3) == [1, 4, 5]
            assert runner._observer.lost == 2


async def test_a_column_that_is_dropped_while_it_runs_is_named_and_mended(stream, table):
    async with linked(stream) as link:
        runner = runner_of(link, table)
        async with running(runner):
            await publish_events(stream, [{"soc": 1}])
            await written(table, 1)
            with psycopg.connect(table, autocommit=True) as connection:
                connection.execute("ALTER TABLE battery DROP COLUMN soc")
            await publish_events(stream, [{"soc": 2}], first=2)
            await eventually(lambda: runner.state is State.REFUSED)
            await eventually(lambda: "soc" in runner.trouble)
            with psycopg.connect(table, autocommit=True) as connection:
                connection.execute("ALTER TABLE battery ADD COLUMN soc int")
            assert await written(table, 2) == [None, 2]


async def test_tail_shows_the_letters_of_sinks_beside_those_of_the_gateway(stream, table):
    await publish_events(stream, [{"soc": 500}])
    async with linked(stream) as link:
        client = await link.wait_up()
        await client.jetstream().publish(
            "deadletters.default.veh-1", b"{}", headers={"Tidegate-Error": "depth"}
        )
        async with running(runner_of(link, table)):

            async def buried():
                return (await client.jetstream().stream_info("DEADLETTERS")).state.messages == 2

            await eventually(buried)
        wanted = ReplayFilter(dead_letters=True, device="veh-1")
        shown = [
            json.loads(line)
            async for line in replay(link, wanted, follow=False, rng=random.Random(1))
        ]
    assert [(each["error"], each.get("consumer")) for each in shown] == [
        ("depth", None),
        ("check_violation", "battery"),
    ]
    assert shown[1]["type"] == "battery.low"


async def test_the_lag_is_known_while_the_database_is_away(stream, table):
    async with linked(stream) as link:
        runner = runner_of(link, table, types=["battery.", "door."])
        async with running(runner):
            await publish_events(stream, [{"soc": 1}])
            await written(table, 1)
            await eventually(lambda: runner.lag_messages == runner.lag_s == 0)
            name = psycopg.conninfo.conninfo_to_dict(table)["dbname"]
            with psycopg.connect(table, autocommit=True, dbname="postgres") as connection:
                connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                    (name,),
                )
                await publish_events(stream, [{"soc": 2}, {"soc": 3}], first=2)
                await publish_events(stream, [{}], first=4, message_type="other")
                await eventually(lambda: not runner.running)
                await eventually(lambda: runner.lag_messages == 2)
                assert 0 < runner.lag_s < 60
                connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
            assert await written(table, 3) == [1, 2, 3]
            await eventually(lambda: runner.lag_messages == 0)


async def test_a_sink_that_stands_by_does_not_know_the_lag(stream, table):
    async with linked(stream) as link:
        standby = runner_of(link, table, owner="standby")
        async with running(runner_of(link, table)):
            await publish_events(stream, [{"soc": 1}])
            await written(table, 1)
            async with running(standby):
                await eventually(lambda: standby.state is State.STANDING_BY)
                assert math.isnan(standby.lag_messages)


async def test_an_older_copy_that_gives_sequences_again_stops_the_sink(stream, table):
    """The creation time is the same; other messages stand under the sequences that were read."""
    await publish_events(stream, [{"soc": 1}, {"soc": 2}])
    stored, copy = stream.directory / "js", stream.directory / "copy"
    stream.kill()
    shutil.copytree(stored, copy)
    stream.start()
    await publish_events(stream, [{"soc": 3}, {"soc": 4}], first=3)
    async with linked(stream) as link, running(runner_of(link, table)):
        await written(table, 4)
    stream.kill()
    shutil.rmtree(stored)
    copy.rename(stored)
    stream.start()
    async with linked(stream) as link:
        with pytest.raises(StreamWentBack, match="position is 4 and the stream ends at 2"):
            await within(runner_of(link, table, owner="again").run())
        await publish_events(stream, [{"soc": 30}, {"soc": 40}], first=30)
        with pytest.raises(StreamWentBack, match="was default:veh-1:o1:4 and is now"):
            await within(runner_of(link, table, owner="later").run())
    assert rows(table) == [1, 2, 3, 4]


async def test_a_column_that_is_added_while_it_runs_takes_its_default(stream, table):
    async with linked(stream) as link, running(runner_of(link, table)):
        await publish_events(stream, [{"soc": 1}])
        await written(table, 1)
        with psycopg.connect(table, autocommit=True) as connection:
            connection.execute("ALTER TABLE battery ADD COLUMN site text NOT NULL DEFAULT 'depot'")
        await publish_events(stream, [{"soc": 2}], first=2)
        assert await written(table, 2) == [1, 2]
    assert rows(table, "SELECT site FROM battery") == ["depot", "depot"]


async def test_a_statement_that_is_too_slow_is_tried_with_fewer_rows(stream, table, monkeypatch):
    monkeypatch.setattr(postgres, "_STATEMENT_TIMEOUT_MS", 400)
    with psycopg.connect(table, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END $$"
        )
        connection.execute(
            "CREATE TRIGGER slow BEFORE INSERT ON battery FOR EACH ROW EXECUTE FUNCTION slow()"
        )
    await publish_events(stream, [{"soc": n} for n in range(60)])
    async with linked(stream) as link:
        runner = runner_of(link, table, linger_ms=200)
        async with running(runner):
            assert await written(table, 60) == list(range(60))
            assert runner._observer.repeats > 0
            assert all(runner._observer.errors), "each batch that failed says why"


async def test_an_event_that_is_nested_too_deep_is_a_letter_and_does_not_end_the_sink(
    stream, table
):
    deep = b'{"soc":' + b"[" * 20_000 + b"]" * 20_000 + b"}"
    await publish_events(stream, [{"soc": 1}, deep, {"soc": 3}])
    async with linked(stream) as link, running(runner_of(link, table)):
        assert await written(table, 2) == [1, 3]
    ((_subject, headers, payload),) = await letters(stream)
    assert payload == deep
    assert "nested too deep" in headers["Tidegate-Detail"]


async def test_a_stream_that_is_still_empty_is_read_at_once(stream, table):
    """Not after a backoff, which would hold up the first event."""
    async with linked(stream) as link:
        runner = runner_of(link, table)
        async with running(runner):
            await eventually(lambda: runner._pending is not None)
            await publish_events(stream, [{"soc": 1}])
            assert await written(table, 1) == [1]
