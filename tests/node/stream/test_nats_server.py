"""The watch over the disk of the embedded server."""

import asyncio
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from gateway.node.stream import nats_server
from gateway.node.stream.nats_server import EmbeddedNats, SupervisedServer

MIB = 1 << 20
SETTINGS = SimpleNamespace(
    nats=SimpleNamespace(data_dir="/data"), stream=SimpleNamespace(durability="fsync")
)


class OwnServer:
    action = "restart"

    def __init__(self):
        self.restarts = 0

    async def restart(self):
        self.restarts += 1


async def watched(server, monkeypatch, free_bytes):
    """What is logged while the disk has so many bytes free, one look after the other."""
    free = iter(free_bytes)

    def disk_usage(_directory):
        return SimpleNamespace(free=next(free))

    async def beat(_period_s):
        if free.__length_hint__() == 0:
            raise asyncio.CancelledError

    monkeypatch.setattr(nats_server, "beat", beat)
    monkeypatch.setattr(nats_server.shutil, "disk_usage", disk_usage)
    embedded = EmbeddedNats(SETTINGS, server, lambda: None)
    ((_name, watch),) = embedded.work()
    with capture_logs() as logs, pytest.raises(asyncio.CancelledError):
        await watch
    return [(line["event"], line.get("action")) for line in logs]


async def test_a_disk_that_has_room_again_is_a_reason_to_restart_the_server(monkeypatch):
    server = OwnServer()
    logged = await watched(server, monkeypatch, [0, 0, 100 * MIB, 100 * MIB])
    assert logged == [("disk_full", None), ("disk_has_room", "restart")]
    assert server.restarts == 1


async def test_a_worker_leaves_the_restart_to_its_supervisor_and_says_so(monkeypatch):
    logged = await watched(SupervisedServer("nats://a:1"), monkeypatch, [0, 100 * MIB])
    assert logged == [("disk_full", None), ("disk_has_room", "left to the supervisor")]
