"""The embedded server: started, guarded, restarted, stopped."""

import os
import random
import signal
import socket
import sys
from pathlib import Path

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from structlog.testing import capture_logs

from gateway.stream.errors import ServerError
from gateway.stream.server import nats_server
from gateway.stream.server.nats_server import EmbeddedServer
from gateway.stream.server.roles import Role, url_file
from support.children import alive, spawned
from support.waiting import eventually, within


@pytest.fixture
async def server(tmp_path):
    restarts = []
    embedded = EmbeddedServer(
        tmp_path,
        fsync=True,
        batch_messages_max=4_000,
        port=0,
        rng=random.Random(1),
        on_restart=lambda: restarts.append(1),
        on_failure=restarts.append,
    )
    embedded.restarts = restarts
    await embedded.start()
    yield embedded
    await embedded.stop()


async def test_it_syncs_every_write_and_keeps_its_secret_private(server, tmp_path):
    assert '"sync_interval": "always"' in (tmp_path / "nats" / "server.conf").read_text()
    paths = [*(url_file(tmp_path, role) for role in Role), tmp_path / "nats" / "server.conf"]
    for path in (*paths, tmp_path / "nats"):
        assert path.stat().st_mode & 0o077 == 0
    stranger = Client()
    wrong = server.url.replace("gateway:", "gateway:x")
    with pytest.raises(nats.errors.Error):
        await stranger.connect(wrong, allow_reconnect=False, error_cb=_quiet)
    await stranger.close()


async def _quiet(_error):
    pass


def environment_of(pid):
    return Path(f"/proc/{pid}/environ").read_bytes()


async def test_it_inherits_no_secret_of_the_gateway(tmp_path, monkeypatch):
    monkeypatch.setenv("TIDEGATE_NATS__PASSWORD", "s3cr3t")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t")
    monkeypatch.setenv("GOGC", "90")
    embedded = EmbeddedServer(
        tmp_path,
        fsync=False,
        batch_messages_max=4_000,
        port=0,
        rng=random.Random(1),
        on_restart=list,
        on_failure=list,
    )
    await embedded.start()
    environment = environment_of(embedded.pid)
    await embedded.stop()
    assert b"PATH=" in environment
    assert b"s3cr3t" not in environment
    assert b"GOGC=90\0" in environment


async def test_a_killed_server_comes_back_on_the_same_address_with_its_messages(server):
    client = await nats.connect(server.url, error_cb=_quiet, inbox_prefix="_INBOX.gateway")
    context = client.jetstream()
    await context.add_stream(name="EVENTS", subjects=["events.>"])
    await context.publish("events.a", b"1")
    await client.close()
    pid, url = server.pid, server.url
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: server.restarts == [1])
    assert (server.url, server.pid != pid) == (url, True)
    client = await nats.connect(url, error_cb=_quiet, inbox_prefix="_INBOX.gateway")
    assert (await client.jetstream().stream_info("EVENTS")).state.messages == 1
    await client.close()


async def test_the_log_tells_a_death_from_a_restart(server):
    with capture_logs() as logs:
        await server.restart()
        await eventually(lambda: server.restarts == [1])
        assert [line["event"] for line in logs] == ["nats_server_restarted"]
        os.kill(server.pid, signal.SIGKILL)
        await eventually(lambda: server.restarts == [1, 1])
    assert [line["event"] for line in logs[1:]] == ["nats_server_died", "nats_server_restarted"]


async def test_a_stopped_server_leaves_no_process_and_no_url_file(server, tmp_path):
    pid = server.pid
    await server.stop()
    assert not alive(pid)
    assert not [file.name for file in (tmp_path / "nats").glob("*url")]


async def test_a_full_disk_is_an_error_that_names_the_file(server, monkeypatch):
    def full(descriptor, mode):
        os.close(descriptor)
        return Path("/dev/full").open(mode)

    await server.stop()
    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/nats/server\.conf'"):
        await server.start()


def first_outgoing_port():
    return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])


async def test_no_outgoing_connection_can_take_the_port_of_a_server_that_starts_again(server):
    assert int(server.url.rsplit(":", 1)[1]) < first_outgoing_port()


async def test_nobody_takes_the_port_of_a_server_that_starts_again(server, monkeypatch):
    def missing():
        raise ServerError("there is none for the moment")

    port = int(server.url.rsplit(":", 1)[1])
    monkeypatch.setattr(nats_server, "find_binary", missing)
    with capture_logs() as logs:
        os.kill(server.pid, signal.SIGKILL)
        await eventually(lambda: logs[1:])
        assert logs[1]["event"] == "nats_server_restart_failed"
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        monkeypatch.undo()
        await eventually(lambda: server.restarts == [1])
    assert int(server.url.rsplit(":", 1)[1]) == port


async def test_a_port_in_use_is_an_error_with_the_servers_own_words(server, tmp_path):
    port = int(server.url.rsplit(":", 1)[1])
    second = EmbeddedServer(
        tmp_path / "second",
        fsync=False,
        batch_messages_max=4_000,
        port=port,
        rng=random.Random(1),
        on_restart=list,
        on_failure=list,
    )
    with pytest.raises(ServerError, match="address already in use"):
        await second.start()


ORPHAN = """
import asyncio, random, sys
from pathlib import Path
from gateway.stream.server import nats_server
from gateway.stream.server.nats_server import EmbeddedServer
async def main():
    server = EmbeddedServer(Path(sys.argv[1]), fsync=False, batch_messages_max=4_000, port=0,
                            rng=random.Random(1), on_restart=list, on_failure=print)
    await server.start()
    print(server.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_it_does_not_outlive_a_killed_gateway_nor_block_the_next(tmp_path):
    with spawned([sys.executable, "-c", ORPHAN, str(tmp_path)]) as parent:
        orphan = int(parent.stdout.readline())
        parent.kill()
    following = EmbeddedServer(
        tmp_path,
        fsync=False,
        batch_messages_max=4_000,
        port=0,
        rng=random.Random(1),
        on_restart=list,
        on_failure=list,
    )
    await within(following.start())
    assert not alive(orphan)
    await following.stop()
