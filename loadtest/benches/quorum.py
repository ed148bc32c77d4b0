"""`make bench ARGS="cluster"`: three NATS servers on this machine, a stream with three replicas.

The gateway is compared with devices that publish straight to the WebSocket listener of the server
which leads the stream, the best place for them.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import nats
import nats.errors
import nats.js.errors

from loadtest.benches.rig import Bench
from loadtest.benches.sides import COLUMNS, TURNS, Side
from loadtest.servers.backends import NatsServer, nats_cluster
from loadtest.servers.gateway import GatewayServer
from loadtest.servers.process import free_port
from loadtest.waiting import until_awaited

_SIZE: Final = 3
_READY_S: Final = 30.0
_DEVICES: Final = 200
_WINDOW: Final = 100


class Cluster:
    """Three servers that form one cluster, each with a WebSocket listener."""

    def __init__(self, directory: Path, *, fsync: bool) -> None:
        """
        Args:
            directory: for the servers' files.
            fsync: whether each write is synced before it is acknowledged.
        """
        jetstream: dict[str, Any] = {"sync_interval": "always"} if fsync else {}
        self.servers = nats_cluster(directory, _SIZE, jetstream=jetstream, max_connections=64_000)
        self._websockets = {name: free_port() for name in self.servers}
        for name, server in self.servers.items():
            document = json.loads((server.directory / "nats.conf").read_text())
            listen = {"listen": f"127.0.0.1:{self._websockets[name]}", "no_tls": True}
            (server.directory / "nats.conf").write_text(
                json.dumps(document | {"websocket": listen})
            )

    @contextlib.contextmanager
    def running(self) -> Iterator["Cluster"]:
        """From when every server serves until the end of the block."""
        with contextlib.ExitStack() as stack:
            for server in self.servers.values():
                server.launch()
                stack.callback(server.stop)
            for server in self.servers.values():
                server.wait_until_up()
            yield self

    @property
    def first(self) -> NatsServer:
        return next(iter(self.servers.values()))

    @property
    def urls(self) -> str:
        """Of all servers, with commas in between."""
        return ",".join(server.url for server in self.servers.values())

    def websocket_of(self, name: str) -> int:
        """The port of a server's WebSocket listener."""
        return self._websockets[name]

    def cpu_s(self) -> float:
        """CPU time of all servers so far, in seconds."""
        return sum(server.cpu_s() for server in self.servers.values())

    async def leader(self) -> str:
        """The server that leads EVENTS."""
        client = await nats.connect(self.first.url)
        try:
            cluster = (await client.jetstream().stream_info("EVENTS")).cluster
            return (cluster.leader if cluster is not None else None) or ""
        finally:
            await client.close()

    async def provision(self) -> None:
        """Make EVENTS as a gateway makes it.

        Raises:
            TargetError: the cluster does not come together.
        """

        async def made() -> bool:
            client = await nats.connect(self.first.url)
            try:
                await client.jetstream().add_stream(
                    name="EVENTS",
                    subjects=["events.>"],
                    num_replicas=_SIZE,
                    duplicate_window=120,
                    max_age=604_800,
                )
            except (nats.errors.Error, nats.js.errors.APIError):
                return False
            finally:
                await client.close()
            return True

        await until_awaited(made, "a stream with three replicas", _READY_S)


@dataclass(frozen=True, slots=True)
class _Straight:
    """Devices that publish to the leader themselves."""

    cluster: Cluster
    port: int
    name: str = "nats-server"

    @property
    def nats_url(self) -> str:
        return self.cluster.first.url

    def cpu_s(self) -> float:
        return self.cluster.cpu_s()


@dataclass(frozen=True, slots=True)
class _Gateway:
    """Devices of a gateway in front of the cluster."""

    cluster: Cluster
    gateway: GatewayServer
    name: str = "tidegate"

    @property
    def port(self) -> int:
        return self.gateway.port

    @property
    def nats_url(self) -> str:
        return self.cluster.first.url

    def cpu_s(self) -> float:
        return self.cluster.cpu_s() + self.gateway.cpu_s()


async def section_cluster(bench: Bench) -> None:
    """Three servers, three replicas: with the default sync, and with `sync_interval: always`."""
    for durability in ("stream", "fsync"):
        ratio = await _compare(bench, durability)
        bench.report.verdict(
            f"cluster, {durability}, rate over the peer's", ratio, "at least 1.0", ok=ratio >= 1
        )


async def _compare(bench: Bench, durability: str) -> float:
    fsync = durability == "fsync"
    peers = Cluster(bench.fresh_directory("peers"), fsync=fsync)
    ours = Cluster(bench.fresh_directory("cluster"), fsync=fsync)
    with peers.running(), ours.running():
        await peers.provision()
        gateway = bench.gateway(
            nats__urls=ours.urls,
            nats__monitoring_url=f"http://127.0.0.1:{ours.first.http_port}",
            stream__replicas=_SIZE,
            stream__durability=durability,
        )
        with gateway:
            straight = _Straight(peers, peers.websocket_of(await peers.leader()))
            sides = (
                Side(_Gateway(ours, gateway), partial(bench.gateway_devices, _DEVICES), _WINDOW),
                Side(straight, partial(bench.nats_devices, _DEVICES), _WINDOW),
            )
            for number in range(TURNS):
                for side in sides if number % 2 else reversed(sides):
                    await side.take_turn(number, bench.seconds)
    mine, theirs = (side.figures for side in sides)
    bench.report.table(
        f"three servers, R3, {durability}: {_DEVICES} devices, {_WINDOW} in flight each",
        COLUMNS,
        [mine.row("tidegate"), theirs.row("nats-server WebSocket")],
    )
    return mine.rate / theirs.rate
