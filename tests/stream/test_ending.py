"""Link and server end in every state: a stop, or a loss, at each of their awaits in turn."""

import asyncio
import contextlib
import json
import os
import random
import signal
from pathlib import Path

import pytest

from gateway.stream.link.dialing import NatsAddress
from gateway.stream.link.link import NatsLink
from gateway.stream.server.nats_server import EmbeddedServer
from support.suspensions import hooked, hooked_task, others
from support.waiting import eventually, within


class FakeNats:
    """Says INFO and PONG; can hang up on everybody."""

    def __init__(self):
        self.writers = set()
        self.tasks = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self.drop()
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader, writer):
        self.writers.add(writer)
        self.tasks.add(asyncio.current_task())
        info = {"server_id": "F", "version": "2.12.1", "max_payload": 1 << 20, "headers": True}
        writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                if line.startswith(b"PING"):
                    writer.write(b"PONG\r\n")
        writer.close()
        self.writers.discard(writer)
        self.tasks.discard(asyncio.current_task())

    def drop(self):
        for writer in list(self.writers):
            writer.transport.abort()


async def on_up(client):
    await client.subscribe("a.*", cb=None)


class Link:
    """A link, and what it has said."""

    def __init__(self, url, on_up=on_up):
        self.failures = []
        self.connections = 0
        self.link = NatsLink(
            NatsAddress((url,), reconnect_wait_s=0.001, reconnect_wait_max_s=0.002),
            name="test",
            on_up=on_up,
            on_ready=self.on_ready,
            on_down=lambda: None,
            on_failure=self.failures.append,
            rng=random.Random(1),
        )

    def on_ready(self, _client):
        self.connections += 1


@pytest.mark.parametrize("lost", [False, True], ids=["stop", "stop-and-loss"])
async def test_a_link_ends_whichever_await_it_is_stopped_at(lost):
    """Through two connections and the loss between them."""
    async with FakeNats() as server:
        reached, at = True, 0
        while reached:
            stopping, links = [], []

            def stop(stopping=stopping, links=links):
                if lost:
                    server.drop()
                stopping.append(asyncio.create_task(links[0].stop()))

            made = Link(server.url)
            links.append(made.link)
            with hooked_task("nats-link", at, stop):
                made.link.start()
                await asyncio.sleep(0)  # it runs
            for wanted in (1, 2):
                await eventually(lambda m=made, w=wanted, s=stopping: m.connections >= w or s)
                server.drop()
            reached = bool(stopping)
            for task in stopping:
                await within(task)
            await within(made.link.stop())
            assert made.failures == []
            assert made.link.client is None
            server.drop()
            await eventually(lambda: not others() - server.tasks, f"tasks of await {at}")
            at += 1
        assert at > 10


async def test_a_link_ends_though_cancellations_are_swallowed():
    """As nats-py does in `Client._flush_pending`: the link must not connect once more."""

    async def deaf(_client):
        for _ in range(2):
            with contextlib.suppress(asyncio.CancelledError):
                reached.set()
                await asyncio.Event().wait()

    async with FakeNats() as server:
        reached = asyncio.Event()
        made = Link(server.url, deaf)
        made.link.start()
        await within(reached.wait())
        await within(made.link.stop())
        assert made.connections == 0 or made.link.client is None
        server.drop()
        await eventually(lambda: not others() - server.tasks)


def embedded(directory, on_restart=list):
    return EmbeddedServer(
        directory,
        fsync=False,
        batch_messages_max=100,
        port=0,
        rng=random.Random(1),
        on_restart=on_restart,
        on_failure=list,
    )


def servers_of(directory):
    """Command lines of nats-servers of that directory."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(file.read_bytes())
    return [line for line in found if str(directory / "nats").encode() in line]


async def test_a_server_leaves_no_process_whichever_await_its_start_is_cancelled_at(tmp_path):
    reached, at = True, 0
    while reached:
        server = embedded(tmp_path)
        starting = []

        def cancel(starting=starting):
            starting[0].cancel()

        starting.append(asyncio.create_task(hooked(server.start, at, cancel)()))
        await within(asyncio.wait(starting))
        reached = starting[0].cancelled()
        await within(server.stop())
        assert servers_of(tmp_path) == []
        assert others() == set()
        at += 1
    assert at > 2


async def test_a_server_leaves_no_process_whichever_await_of_a_restart_it_is_stopped_at(tmp_path):
    reached, at = True, 0
    while reached:
        stopping, restarted = [], []
        server = embedded(tmp_path, lambda restarted=restarted: restarted.append(1))

        def stop(server=server, stopping=stopping):
            stopping.append(asyncio.create_task(server.stop()))

        with hooked_task("nats-server", at, stop):
            await within(server.start())
            await asyncio.sleep(0)  # its task runs
        if at:
            os.kill(server.pid, signal.SIGKILL)
        await eventually(lambda s=stopping, r=restarted: s or r)
        reached = bool(stopping)
        for task in stopping:
            await within(task)
        await within(server.stop())
        assert servers_of(tmp_path) == []
        assert others() == set()
        at += 1
    assert at > 3
