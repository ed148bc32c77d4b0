"""The embedded server: started, guarded, restarted, stopped."""

import os
import random
import signal
import sys
from pathlib import Path

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from support.processes import spawned
from support.waiting import eventually, within

from gateway.stream.errors import ServerError
from gateway.stream.nats_server import EmbeddedServer, url_file


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


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
    )
    embedded.restarts = restarts
    await embedded.start()
    yield embedded
    await embedded.stop()


async def test_it_syncs_every_write_and_keeps_its_secret_private(server, tmp_path):
    assert '"sync_interval": "always"' in (tmp_path / "nats" / "server.conf").read_text()
    for path in (url_file(tmp_path), tmp_path / "nats" / "server.conf"):
        assert path.stat().st_mode & 0o077 == 0
    stranger = Client()
    wrong = server.url.replace("tidegate:", "tidegate:x")
    with pytest.raises(nats.errors.Error):
        await stranger.connect(wrong, allow_reconnect=False, error_cb=_quiet)
    await stranger.close()


async def _quiet(_error):
    pass


async def test_its_user_reaches_no_subject_but_the_gateways(server):
    denied = []

    async def on_error(error):
        denied.append(str(error).lower())

    client = await nats.connect(server.url, error_cb=on_error)
    for subject in ("other.subject", "$SYS.REQ.SERVER.PING", "commands.a.b"):
        await client.publish(subject, b"x")
    await client.flush()
    await eventually(lambda: len(denied) == 3)
    assert all("permissions violation" in each for each in denied)
    await client.close()


async def test_killed_it_comes_back_on_the_same_address_with_its_messages(server):
    client = await nats.connect(server.url, error_cb=_quiet)
    context = client.jetstream()
    await context.add_stream(name="EVENTS", subjects=["events.>"])
    await context.publish("events.a", b"1")
    await client.close()
    pid, url = server.pid, server.url
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: server.restarts == [1])
    assert (server.url, server.pid != pid) == (url, True)
    client = await nats.connect(url, error_cb=_quiet)
    assert (await client.jetstream().stream_info("EVENTS")).state.messages == 1
    await client.close()


async def test_stopped_it_is_gone(server, tmp_path):
    pid = server.pid
    await server.stop()
    assert not alive(pid)
    assert not url_file(tmp_path).exists()


async def test_a_port_in_use_is_an_error_with_the_servers_own_words(server, tmp_path):
    port = int(server.url.rsplit(":", 1)[1])
    second = EmbeddedServer(
        tmp_path / "second",
        fsync=False,
        batch_messages_max=4_000,
        port=port,
        rng=random.Random(1),
        on_restart=list,
    )
    with pytest.raises(ServerError, match="address already in use"):
        await second.start()


ORPHAN = """
import asyncio, random, sys
from pathlib import Path
from gateway.stream.nats_server import EmbeddedServer
async def main():
    server = EmbeddedServer(Path(sys.argv[1]), fsync=False, batch_messages_max=4_000, port=0,
                            rng=random.Random(1), on_restart=list)
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
    )
    await within(following.start())
    assert not alive(orphan)
    await following.stop()
