"""10,000 connections stop reading while commands for them keep coming."""

import asyncio
from typing import Final

import nats

from loadtest.benches.rig import NO_KNOCK_LIMIT, Bench
from loadtest.devices.deaf import Deaf, connect_deaf
from loadtest.devices.limits import require_descriptors
from loadtest.servers.backends import NatsServer
from loadtest.servers.gateway import GatewayServer
from loadtest.waiting import until

_MIB: Final = 2**20
_COUNT: Final = 10_000
_COMMAND_BYTES: Final = 32_768
_BUFFER_BYTES: Final = 32_768
_ROUNDS: Final = 6
_SETTLE_TIMEOUT_S: Final = 180.0


async def section_deaf(bench: Bench) -> None:
    """10,000 connections stop reading while commands for them keep coming."""
    require_descriptors(_COUNT + 500)
    with NatsServer(bench.fresh_directory("nats")) as server, bench.gateway(
        nats__urls=server.url,
        stream__durability="stream",
        limits__write_buffer_bytes=_BUFFER_BYTES,
        limits__slow_reader_timeout_ms=30_000,
        **NO_KNOCK_LIMIT,
    ) as gateway:  # fmt: skip
        devices = await _connect(bench, gateway)
        before = gateway.memory_bytes()
        most = await _command_all(server, gateway)
        outcomes = _commands(gateway)
        await until(
            lambda: gateway.status()["connections"] <= _COUNT // 100,
            "slow readers dropped",
            _SETTLE_TIMEOUT_S,
        )
        after = gateway.memory_bytes()
        for device in devices:
            device.abort()
    # One frame may pass the mark before the buffer counts as full.
    bound = _COUNT * (_BUFFER_BYTES + _COMMAND_BYTES)
    bench.report.table(
        f"{_COUNT:,} connections that stop reading, {_ROUNDS} commands of {_COMMAND_BYTES:,} bytes",
        ("", ""),
        [
            ("commands written / held back", outcomes),
            ("gateway memory before / at most / after, MiB",
             f"{before / _MIB:.0f} / {most / _MIB:.0f} / {after / _MIB:.0f}"),
            ("configured bound on what waits for them, MiB", f"{bound / _MIB:.0f}"),
        ],
    )  # fmt: skip
    bench.report.at_most("memory growth over the bound", (most - before) / bound, 1)


async def _connect(bench: Bench, gateway: GatewayServer) -> list[Deaf]:
    devices: list[Deaf] = []
    for start in range(0, _COUNT, 50):
        devices += await asyncio.gather(
            *(
                connect_deaf(gateway.port, bench.issuer.token(f"deaf-{n}"))
                for n in range(start, start + 50)
            )
        )
    await until(lambda: all(device.ready for device in devices), "all welcomed", _SETTLE_TIMEOUT_S)
    return devices


async def _command_all(server: NatsServer, gateway: GatewayServer) -> int:
    """Send commands to all of them. The most memory that the gateway had meanwhile."""
    client = await nats.connect(server.url)
    command = b'{"type":"t","data":"%b"}' % (b"x" * _COMMAND_BYTES)
    most = 0
    for _round in range(_ROUNDS):
        for number in range(_COUNT):
            await client.publish(f"commands.default.deaf-{number}", command)
            if number % 100 == 0:
                await client.flush()
                most = max(most, gateway.memory_bytes())
    await client.close()
    return most


def _commands(gateway: GatewayServer) -> str:
    counts = [
        gateway.metric(f'tidegate_commands_total{{outcome="{outcome}"}}')
        for outcome in ("sent", "congested")
    ]
    return " / ".join(f"{count:,.0f}" for count in counts)
