"""Disasters of the stream: its leader dies, it stands still, it is away for too long."""

import asyncio
import contextlib
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Final

import nats
import nats.errors
import nats.js.errors

from loadtest.benches.rig import NO_KNOCK_LIMIT, Bench
from loadtest.devices.writers import WriterPlan
from loadtest.lab import aftermath
from loadtest.lab.mishaps import kill_for
from loadtest.lab.scene import SETTLE_TIMEOUT_S, Fault, Scene, Trial, check, write_through_faults
from loadtest.servers.backends import NatsServer, nats_cluster, synced_nats_server
from loadtest.waiting import until, until_awaited

_STOPPED_S: Final = 30.0
_WINDOW_S: Final = 2
_AWAY_S: Final = 2.0 * _WINDOW_S
_MISSED_MESSAGES: Final = 5_000
"""How many are stored without the killed leader before it comes back."""
_LEADER_TIMEOUT_S: Final = 60.0

Servers = Mapping[str, NatsServer]


async def section_leader(bench: Bench) -> None:
    """Three NATS servers, three replicas; the one that leads the stream is killed, three times."""
    servers = nats_cluster(bench.directory / "cluster", 3)
    trial = Trial(
        devices=200, plan=WriterPlan(messages=1_000), faults=3, seed=5,
        kinds=lambda scene: {"kill -9 leader": partial(_kill_leader, scene, servers)},
    )  # fmt: skip
    with ExitStack() as stack:
        for server in servers.values():
            stack.callback(server.stop)
            server.launch()
        for server in servers.values():
            server.wait_until_up()
        await _wait_for_jetstream(servers)
        gateway = stack.enter_context(
            bench.gateway(
                nats__urls=",".join(server.url for server in servers.values()),
                stream__replicas=3,
                stream__durability="stream",
                **NO_KNOCK_LIMIT,
            )
        )
        scene, seconds = await write_through_faults(bench, gateway, trial)
        checker = await check(servers["n0"].url, scene)
    cut = scene.writers.log.cut
    note = f"{cut} closes, longest gap {scene.still_s:.1f} s of {seconds:.0f}"
    aftermath.judge(bench, "the stream's leader killed three times, R3", scene, checker, note)
    bench.report.at_most("ack gap, s", scene.still_s, 20)


async def _kill_leader(scene: Scene, servers: Servers) -> None:
    leader = servers[await _leader(servers)]
    await asyncio.to_thread(leader.kill)
    enough = scene.writers.acked + _MISSED_MESSAGES
    await until(lambda: scene.writers.acked >= enough, "acks without the leader", SETTLE_TIMEOUT_S)
    await asyncio.to_thread(leader.start)


async def _leader(servers: Servers) -> str:
    """Name of the server that leads EVENTS."""
    client = await nats.connect([server.url for server in servers.values()])
    try:
        info = await client.jetstream().stream_info("EVENTS")
    finally:
        await client.close()
    assert info.cluster is not None
    return info.cluster.leader or ""


async def _wait_for_jetstream(servers: Servers) -> None:
    client = await nats.connect([server.url for server in servers.values()])

    async def led() -> bool:
        with contextlib.suppress(nats.errors.Error, nats.js.errors.Error):
            await client.jetstream().account_info()
            return True
        return False

    try:
        await until_awaited(led, "a leader of the NATS cluster", _LEADER_TIMEOUT_S)
    finally:
        await client.close()


async def section_stopped(bench: Bench) -> None:
    """nats-server stands still for 30 s, and goes on."""
    trial = Trial(
        devices=100, plan=WriterPlan(messages=1_000), faults=1, seed=8,
        kinds=lambda scene: {"SIGSTOP nats-server": partial(scene.stop_nats, _STOPPED_S)},
    )  # fmt: skip
    with bench.gateway(**NO_KNOCK_LIMIT) as gateway:
        scene, _seconds = await write_through_faults(bench, gateway, trial)
        checker = await check(gateway.nats_url, scene)
    note = f"{scene.writers.log.cut} closes, longest gap {scene.still_s:.1f} s"
    aftermath.judge(bench, f"nats-server stopped for {_STOPPED_S:.0f} s", scene, checker, note)


async def section_forgotten(bench: Bench) -> None:
    """nats-server is killed and stays away for longer than it remembers message ids."""
    server = synced_nats_server(bench.fresh_directory("nats"))
    trial = Trial(
        devices=100, plan=WriterPlan(messages=2_000), faults=10, seed=9,
        kinds=lambda _scene: {"long outage": partial(kill_for, server, _AWAY_S)},
    )  # fmt: skip
    with server, bench.gateway(
        nats__urls=server.url, stream__duplicate_window_s=_WINDOW_S, **NO_KNOCK_LIMIT
    ) as gateway:  # fmt: skip
        scene, _seconds = await write_through_faults(bench, gateway, trial)
        checker = await check(server.url, scene)
        sample = 'tidegate_messages_settled_total{kind="lookup"}'
        found = await asyncio.to_thread(gateway.metric, sample)
    note = f"{found:,.0f} in doubt were found to be stored"
    aftermath.judge(bench, "ten outages of twice the duplicate window", scene, checker, note)


FORGETFUL: Final = WriterPlan(messages=500, honest_age=False, outboxes=("a", "b", "c"), forgets=200)
"""Devices with several outboxes, of which older copies come back, and a clock in 1970."""


def forgetful_faults(server: NatsServer, scene: Scene) -> Mapping[str, Fault]:
    """Connections cut, the gateway killed, and either away for longer than ids are remembered."""
    return {
        "cut connections": scene.cut,
        "kill -9 gateway": scene.kill_gateway,
        "long absence": partial(kill_for, scene.gateway, _AWAY_S),
        "long outage": partial(kill_for, server, _AWAY_S),
    }


async def section_forgetful(bench: Bench) -> None:
    """Devices come back with older copies of their outboxes, several each, and no clock."""
    server = synced_nats_server(bench.fresh_directory("nats"))
    trial = Trial(
        devices=40, plan=FORGETFUL, faults=6, seed=10, kinds=partial(forgetful_faults, server)
    )
    with server, bench.gateway(
        nats__urls=server.url, stream__duplicate_window_s=_WINDOW_S, **NO_KNOCK_LIMIT
    ) as gateway:  # fmt: skip
        scene, _seconds = await write_through_faults(bench, gateway, trial)
        checker = await check(server.url, scene)
        looked_up = await asyncio.to_thread(gateway.metric, "tidegate_resume_lookups_total")
    faults = ", ".join(f"{count} x {name}" for name, count in sorted(scene.done.items()))
    note = f"{faults}; {looked_up:,.0f} look-ups since the last start"
    title = "older copies of three outboxes each, clocks in 1970"
    aftermath.show(bench, title, ("", scene, checker, note))
    aftermath.judge_damage(bench, checker)
