"""`tidegate sink` and `tidegate schema` as their user types them."""

import json

import psycopg
import pytest

from support import commands
from support.eventstream import make_streams, publish_events
from support.servers import free_port, nats_server

SINK = """\
[[sink]]
name = "battery"
table = "fleet.battery"
on_conflict = "update"
key = ["device"]
[sink.columns]
device = "device"
at = "time"
n = "stream_seq"
soc = "data.soc"
fixed = { constant = 7 }
[[sink]]
name = "archive"
kind = "files"
directory = "out"
"""


def tidegate(*arguments, **environment):
    return commands.tidegate(*arguments, **environment, NO_COLOR="1")


def refused(*arguments, **environment):
    done = tidegate(*arguments, **environment)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture
def events(tmp_path):
    path = tmp_path / "events.toml"
    path.write_text(SINK)
    return path


# tidegate sink


def test_create_prints_tables_that_a_sink_fits(events, database):
    done = tidegate("sink", "--events", events, "--create")
    assert done.returncode == 0, done.stderr
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA fleet")
        connection.execute(done.stdout)
        connection.execute(done.stdout)  # twice does no harm
        rows = connection.execute(
            "SELECT column_name, data_type, is_nullable FROM information_schema.columns"
            " WHERE table_schema = 'fleet' ORDER BY ordinal_position"
        ).fetchall()
    assert rows == [
        ("device", "text", "NO"),
        ("at", "timestamp with time zone", "YES"),
        ("n", "bigint", "NO"),
        ("soc", "jsonb", "YES"),
        ("fixed", "bigint", "YES"),
    ]


def test_a_file_without_sinks_is_refused(tmp_path):
    (tmp_path / "events.toml").write_text("")
    assert "no [[sink]]" in refused("sink", "--events", tmp_path / "events.toml")


def test_a_broken_file_names_the_place(events):
    events.write_text(SINK.replace("data.soc", "dat.soc"))
    assert 'sink "battery".columns.soc' in refused("sink", "--events", events)


def test_only_names_sinks_of_the_file(events):
    said = refused("sink", "--events", events, "--only", "battry")
    assert "there are battery, archive" in said


def test_a_table_needs_a_database(events):
    nowhere = f"nats://127.0.0.1:{free_port()}"
    said = refused("sink", "--events", events, "--ops-port", "0", "--nats-url", nowhere)
    assert "sink battery needs --database-url" in said


def test_two_urls_are_refused(events, tmp_path):
    (tmp_path / "url").write_text("postgresql://x")
    said = refused(
        *("sink", "--events", events, "--database-url-file", tmp_path / "url"),
        TIDEGATE_SINK_DATABASE_URL="postgresql://y",
    )
    assert "exclude each other" in said


def test_a_file_for_the_url_that_is_not_there_is_refused(events, tmp_path):
    assert "--database-url-file" in refused(
        "sink", "--events", events, "--database-url-file", tmp_path / "nothing"
    )


def test_a_url_that_is_none_is_refused_and_not_shown(events):
    said = refused(
        *("sink", "--events", events, "--only", "battery", "--ops-port", "0"),
        *("--nats-url", f"nats://127.0.0.1:{free_port()}"),
        TIDEGATE_SINK_DATABASE_URL="postgresql://u:hidden-word@127.0.0.1:notaport/x",
    )
    assert "hidden-word" not in said


def test_every_table_that_does_not_fit_is_named(events, database):
    events.write_text(SINK.split('[[sink]]\nname = "archive"', maxsplit=1)[0] * 1)
    said = refused(
        *("sink", "--events", events, "--ops-port", "0"),
        *("--nats-url", f"nats://127.0.0.1:{free_port()}"),
        TIDEGATE_SINK_DATABASE_URL=database,
    )
    assert "there is no table fleet.battery" in said


def test_a_rebuild_of_files_is_refused(events):
    assert "name a new directory" in refused(
        "sink", "--events", events, "--only", "archive", "--rebuild", "--ops-port", "0"
    )


# tidegate schema


def schema(folder, name, **document):
    path = folder / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"type": "object", **document}))
    return path


def test_check_says_yes(tmp_path):
    old = schema(tmp_path / "old", "battery.low", properties={"soc": {"maximum": 100}})
    new = schema(tmp_path / "new", "battery.low", properties={"soc": {"maximum": 200}})
    done = tidegate("schema", "check", old, new)
    assert (done.returncode, done.stdout) == (0, "yes\n")


def test_check_says_no_with_an_event_that_shows_it(tmp_path):
    old = schema(tmp_path / "old", "battery.low", properties={"soc": {"type": "integer"}})
    new = schema(
        tmp_path / "new", "battery.low", properties={"soc": {"type": "integer", "maximum": 100}}
    )
    done = tidegate("schema", "check", old, new)
    assert done.returncode == 1
    verdict, example = done.stdout.split(": ", 1)
    assert verdict == "no"
    assert json.loads(example)["soc"] > 100


@pytest.mark.parametrize("content", ["{", "", "[1]", '{"$ref": "https://example.com/x"}'])
def test_check_names_a_file_that_is_no_schema(tmp_path, content):
    old = schema(tmp_path / "old", "battery.low")
    new = tmp_path / "battery.low.json"
    new.write_text(content)
    assert "battery.low.json" in refused("schema", "check", old, new)


def test_check_names_a_file_that_is_not_there(tmp_path):
    said = refused("schema", "check", tmp_path / "a.json", tmp_path / "b.json")
    assert "a.json" in said


def test_export_writes_asyncapi(tmp_path):
    schema(tmp_path, "battery.low", properties={"soc": {"type": "integer"}})
    done = tidegate("schema", "export", tmp_path, "--title", "My fleet", "--version", "7")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["asyncapi"] == "3.0.0"
    assert document["info"] == {"title": "My fleet", "version": "7"}
    assert list(document["channels"]) == ["battery.low"]


def test_export_of_an_empty_folder_is_refused(tmp_path):
    assert "holds no *.json" in refused("schema", "export", tmp_path)


async def test_infer_proposes_a_schema_that_its_events_fit(tmp_path):
    with nats_server(tmp_path / "nats") as server:
        await make_streams(server)
        await publish_events(server, [{"soc": n, "at": "2026-11-25T10:00:00Z"} for n in range(5)])
        await publish_events(server, [{"soc": 5, "note": None}], first=6)
        await publish_events(server, [{"open": True}], first=7, message_type="door.open")
        done = tidegate("schema", "infer", "--type", "battery.low", "--nats-url", server.url)
        assert done.returncode == 0, done.stderr
        proposal = json.loads(done.stdout)
        assert proposal["required"] == ["soc"]
        assert proposal["properties"] == {
            "at": {"type": "string", "format": "date-time"},
            "note": {"type": "null"},
            "soc": {"type": "integer"},
        }
        assert "from 6 stored events" in proposal["description"]
        few = tidegate(
            *("schema", "infer", "--type", "battery.low", "--nats-url", server.url),
            *("--events", "2"),
        )
        assert "from 2 stored events" in few.stdout
        none = refused("schema", "infer", "--type", "battery.full", "--nats-url", server.url)
        assert "no event of type battery.full" in none
        assert "--type" in refused("schema", "infer", "--type", "a b", "--nats-url", server.url)


def test_infer_says_that_nats_is_away():
    said = refused(
        "schema", "infer", "--type", "x", "--nats-url", f"nats://127.0.0.1:{free_port()}"
    )
    assert "NATS" in said
