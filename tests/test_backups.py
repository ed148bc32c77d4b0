"""`tidegate backup` saves the streams while they are written; `restore` makes them anew."""

import asyncio
import json
import random

import nats
import pytest

from gateway.backups import MANIFEST, back_up, restore
from gateway.errors import BackupError
from gateway.settings import load_settings
from gateway.stream.errors import SnapshotError
from support.commands import tidegate
from support.eventstream import make_streams, publish_events
from support.servers import nats_server
from support.stored import read_stream

TIMES = {"began": "2026-11-26T00:00:00Z", "ended": "2026-11-26T00:00:01Z"}
EVENTS = {
    "messages": 0,
    "first_seq": 0,
    "last_seq": 0,
    "bytes": 0,
    "sha256": "",
    "stream": "EVENTS",
}


def settings(server):
    return load_settings(None, environment={}, overrides={"nats.urls": (server.url,)})


def ignore(_line):
    pass


@pytest.fixture
async def saved(tmp_path):
    """A backup of 600 events that fill many chunks, and the server that it is of."""
    rng = random.Random(5)
    with nats_server(tmp_path / "n1") as server:
        await make_streams(server, allow_direct=True)
        events = [{"n": n, "noise": rng.randbytes(2_000).hex()} for n in range(600)]
        await publish_events(server, events)
        said = []
        await back_up(settings(server), tmp_path / "backup", said.append)
        assert said[-1].startswith("EVENTS: 600 messages, up to 600, ")
        yield tmp_path / "backup", server


async def test_a_restored_stream_is_the_one_that_was_saved(saved, tmp_path):
    directory, server = saved
    assert (directory / "EVENTS" / "stream.tar.s2").stat().st_size > 1_000_000
    with nats_server(tmp_path / "n2") as other:
        await restore(settings(other), directory, ignore)
        assert await read_stream(other.url) == await read_stream(server.url)
        assert await read_stream(other.url, "DEADLETTERS") == []


async def test_events_go_on_while_a_backup_is_made(saved, tmp_path):
    """It has a beginning of the stream, at least as far as the stream was when it began."""
    _directory, server = saved
    writing = asyncio.create_task(publish_events(server, [{"n": n} for n in range(600)], first=601))
    await back_up(settings(server), tmp_path / "more", ignore)
    await writing
    with nats_server(tmp_path / "n2") as other:
        await restore(settings(other), tmp_path / "more", ignore)
        restored, stored = await read_stream(other.url), await read_stream(server.url)
    assert len(restored) >= 600
    assert restored == stored[: len(restored)]


async def test_nothing_is_restored_over_a_stream_that_is_there(saved):
    directory, server = saved
    with pytest.raises(BackupError, match="DEADLETTERS, EVENTS: the server has it already"):
        await restore(settings(server), directory, ignore)


async def test_no_stream_is_made_of_a_backup_of_which_one_archive_is_damaged(saved, tmp_path):
    directory, _server = saved
    archive = directory / "EVENTS" / "stream.tar.s2"
    with archive.open("r+b") as file:
        file.seek(500_000)
        file.write(b"?")
    with nats_server(tmp_path / "n2") as other:
        with pytest.raises(SnapshotError, match="is damaged: its digest is not that of EVENTS"):
            await restore(settings(other), directory, ignore)
        client = await nats.connect(other.url)
        assert await client.jetstream().streams_info() == []
        await client.close()


async def test_a_backup_that_was_cut_short_is_not_taken_for_one(saved):
    directory, server = saved
    (directory / MANIFEST).unlink()
    with pytest.raises(BackupError, match=r"has no manifest\.json: it is no complete backup"):
        await restore(settings(server), directory, ignore)
    with pytest.raises(BackupError, match="is not empty"):
        await back_up(settings(server), directory, ignore)


@pytest.mark.parametrize(
    ("manifest", "problem"),
    [
        ("{", "is damaged"),
        ({"form": 2, "snapshots": []}, "is of form 2"),
        ({"form": 1, "snapshots": [EVENTS | {"stream": "../x"}]}, "unknown stream"),
        ({"form": 1, "snapshots": [EVENTS], "more": 1}, "is damaged"),
    ],
)
async def test_a_manifest_that_cannot_be_used_is_named(tmp_path, manifest, problem):
    text = manifest if isinstance(manifest, str) else json.dumps(TIMES | manifest)
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(BackupError, match=problem):
        await restore(load_settings(None, environment={}), tmp_path, ignore)


async def test_a_server_without_streams_has_nothing_to_save(tmp_path):
    with nats_server(tmp_path / "n1") as server:
        with pytest.raises(BackupError, match="no stream of Tidegate"):
            await back_up(settings(server), tmp_path / "backup", ignore)


async def test_a_server_that_stops_sending_is_named(tmp_path):
    """A server without JetStream, so that this test can answer in its place."""
    with nats_server(tmp_path / "n1", jetstream=None) as server:
        client = await nats.connect(server.url)

        async def describe(msg):
            state = dict.fromkeys(("messages", "bytes", "first_seq", "last_seq"), 1)
            info = {"config": {"name": "EVENTS"}, "state": state | {"consumer_count": 0}}
            await msg.respond(json.dumps(info).encode())

        async def send(msg):
            request = json.loads(msg.data)
            state = {"messages": 1, "first_seq": 1, "last_seq": 1}
            await msg.respond(json.dumps({"state": state}).encode())
            await client.publish(request["deliver_subject"], b"part", reply="acks")
            end = {"Status": "408", "Description": "No Flow Response"}
            await client.publish(request["deliver_subject"], b"", headers=end)

        await client.subscribe("$JS.API.STREAM.INFO.*", cb=describe)
        await client.subscribe("$JS.API.STREAM.SNAPSHOT.*", cb=send)
        with pytest.raises(SnapshotError, match="stopped sending: 408 No Flow Response"):
            await back_up(settings(server), tmp_path / "backup", ignore)
        await client.close()
    assert not (tmp_path / "backup" / MANIFEST).exists()


def test_the_commands_save_and_restore_the_streams_of_an_embedded_server(tmp_path):
    """With the rights of an operator there."""
    first, second, directory = tmp_path / "d1", tmp_path / "d2", tmp_path / "backup"
    assert tidegate("provision", "--apply", "--data-dir", first).returncode == 0
    done = tidegate("backup", directory, "--data-dir", first)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("EVENTS: 0 messages, up to 0, ")
    done = tidegate("restore", directory, "--data-dir", second)
    assert done.returncode == 0, done.stderr
    assert tidegate("provision", "--data-dir", second).returncode == 0
    assert (
        "the server has it already" in tidegate("restore", directory, "--data-dir", second).stderr
    )
