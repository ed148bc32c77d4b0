"""Disasters under writers, and then the checker: `python -m loadtest.lab.disasters [SECTION...]`.

    make disasters
    make disasters ARGS="powerloss leader"

`powerloss` and `disk` mount file systems of their own and need leave to do so.
"""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final

import nats
import nats.errors
import nats.js.errors

from loadtest.benches.rig import Bench, run_sections
from loadtest.benches.sections import main_of
from loadtest.checker import Checker
from loadtest.devices.writers import WriterPlan
from loadtest.errors import LimitError, TargetError
from loadtest.lab.faults import Scene, check, write_through_faults
from loadtest.servers.lossyfs import LossyMount
from loadtest.servers.network import BadNetwork
from loadtest.servers.targets import NatsServer, nats_cluster

_NOBODY_TOLD_OFF: Final = {"admission__device_knock_burst": 10_000}
_DISK_BYTES: Final = 64 * 2**20
_STOPPED_S: Final = 30.0
_WINDOW_S: Final = 2
_ALARM_TIMEOUT_S: Final = 60.0


Run = tuple[str, Scene, Checker, str]
"""A name, who wrote, what was found, and what else there is to say."""


def _show(bench: Bench, title: str, *runs: Run) -> None:
    """What became of the messages, a column a run."""
    rows = [
        ("acknowledged", *(f"{scene.acked:,}" for _, scene, _, _ in runs)),
        ("stored", *(f"{checker.stored:,}" for _, _, checker, _ in runs)),
    ]
    for number, (kind, _finding) in enumerate(runs[0][2].findings()):
        counts = [checker.findings()[number][1].count for _, _, checker, _ in runs]
        rows.append((kind, *(f"{count:,}" for count in counts)))
    rows.append(("", *(note for _, _, _, note in runs)))
    bench.report.table(title, ("", *(name for name, _, _, _ in runs)), rows)


def _judge(bench: Bench, title: str, scene: Scene, checker: Checker, note: str) -> None:
    """One run's messages, none of them hurt, by devices that nobody disconnected."""
    _show(bench, title, ("", scene, checker, note))
    bench.report.verdict("damage", _damage(checker), "0", ok=checker.clean)
    bench.report.verdict("device closes", scene.log.cut, "0", ok=scene.log.cut == 0)


def _damage(checker: Checker) -> int:
    return sum(finding.count for _name, finding in checker.findings())


class Machine:
    """A gateway and its embedded NATS on a disk that can lose power."""

    def __init__(self, bench: Bench, durability: str) -> None:
        self.gateway = bench.gateway(stream__durability=durability, **_NOBODY_TOLD_OFF)
        self._data = self.gateway.directory / "data"
        self._kept = self.gateway.directory / "kept"
        self._stack = ExitStack()

    def boot(self) -> None:
        self._disk = self._stack.enter_context(LossyMount(self._data, self._kept))
        self.gateway.start()

    def lose_power(self) -> None:
        pids = self.gateway.pids
        self._disk.power_off()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.gateway.kill()
        self._stack.close()

    def shut_down(self) -> None:
        self.gateway.stop()
        self._stack.close()


async def section_powerloss(bench: Bench) -> None:
    """The power goes, several times; then with the weaker durability, as the control."""
    runs: list[Run] = []
    lost = {}
    for durability in ("fsync", "stream"):
        machine = Machine(bench, durability)

        def arrange(scene: Scene, machine: Machine = machine) -> None:
            async def power_loss() -> None:
                await asyncio.to_thread(machine.lose_power)
                await asyncio.to_thread(machine.boot)

            scene.faults = {"power loss": power_loss}

        machine.boot()
        try:
            scene, _seconds = await write_through_faults(
                bench, machine.gateway, devices=50, plan=WriterPlan(messages=1_000),
                faults=5, seed=4, arrange=arrange,
            )  # fmt: skip
            told = machine.gateway.status()["stream"]["durability"]
            checker = await check(machine.gateway.nats_url, scene.writers)
        finally:
            machine.shut_down()
        lost[durability] = checker.lost.count
        runs.append((f"durability {durability}", scene, checker, f"/status says {told}"))
    _show(bench, "power lost 5 times under 50 writers", *runs)
    bench.report.verdict("lost with fsync", lost["fsync"], "0", ok=lost["fsync"] == 0)
    bench.report.verdict(
        "lost with the weaker durability (the control)", lost["stream"], "more than 0",
        ok=lost["stream"] > 0,
    )  # fmt: skip


async def _leader(servers: dict[str, NatsServer]) -> str:
    """Name of the server that leads EVENTS."""
    client = await nats.connect([server.url for server in servers.values()])
    try:
        info = await client.jetstream().stream_info("EVENTS")
    finally:
        await client.close()
    assert info.cluster is not None
    return info.cluster.leader or ""


async def _wait_for_jetstream(servers: dict[str, NatsServer]) -> None:
    deadline = monotonic() + 60
    client = await nats.connect([server.url for server in servers.values()])
    try:
        while monotonic() < deadline:
            with contextlib.suppress(nats.errors.Error, nats.js.errors.Error):
                await client.jetstream().account_info()
                return
            await asyncio.sleep(0.2)
    finally:
        await client.close()
    raise TargetError("the NATS cluster found no leader")


async def section_leader(bench: Bench) -> None:
    """Three NATS servers, three replicas; the one that leads the stream is killed, three times."""
    servers = nats_cluster(bench.directory / "cluster", 3)
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
                **_NOBODY_TOLD_OFF,
            )
        )

        def arrange(scene: Scene) -> None:
            async def kill_leader() -> None:
                leader = servers[await _leader(servers)]
                await asyncio.to_thread(leader.kill)
                acked = scene.acked
                while scene.acked < acked + 5_000:  # noqa: ASYNC110  # bounded by the run
                    await asyncio.sleep(0.02)
                await asyncio.to_thread(leader.start)

            scene.faults = {"kill -9 leader": kill_leader}

        scene, seconds = await write_through_faults(
            bench, gateway, devices=200, plan=WriterPlan(messages=1_000), faults=3, seed=5,
            arrange=arrange,
        )  # fmt: skip
        checker = await check(servers["n0"].url, scene.writers)
    note = f"{scene.log.cut} closes, longest gap {scene.still_s:.1f} s of {seconds:.0f}"
    _judge(bench, "the stream's leader killed three times, R3", scene, checker, note)
    bench.report.verdict("ack gap, s", scene.still_s, "at most 20", ok=scene.still_s <= 20)


@contextlib.contextmanager
def _small_disk(mountpoint: Path, size: int) -> Iterator[None]:
    mountpoint.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(mountpoint)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as exc:
        raise LimitError(f"cannot mount a small disk ({exc}): run as root") from None
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", mountpoint], check=False)  # noqa: S607


async def section_disk(bench: Bench) -> None:
    """Somebody else fills the disk; nothing is stored until there is room, and nobody restarts."""
    gateway = bench.gateway(**_NOBODY_TOLD_OFF)
    data = gateway.directory / "data"
    alarms: list[float] = []
    with _small_disk(data, _DISK_BYTES), gateway:
        ballast = data / "ballast"

        def arrange(scene: Scene) -> None:
            async def fill_disk() -> None:
                with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                    while True:
                        file.write(bytes(2**16))
                full_at = monotonic()
                while not await asyncio.to_thread(gateway.metric, "tidegate_held"):
                    if monotonic() > full_at + _ALARM_TIMEOUT_S:
                        raise TargetError("the disk is full and no metric says so")
                    await asyncio.sleep(0.1)
                alarms.append(monotonic() - full_at)
                await asyncio.sleep(5)
                ballast.unlink()

            scene.faults = {"disk full": fill_disk}

        scene, _seconds = await write_through_faults(
            bench, gateway, devices=50, plan=WriterPlan(messages=1_000), faults=3, seed=6,
            arrange=arrange,
        )  # fmt: skip
        checker = await check(gateway.nats_url, scene.writers)
    note = f"{scene.log.cut} closes, alarm after {max(alarms):.1f} s"
    _judge(bench, "the disk full three times", scene, checker, note)
    bench.report.verdict("alarm, s", max(alarms), "at most 10", ok=max(alarms) <= 10)


async def section_stopped(bench: Bench) -> None:
    """nats-server stands still for 30 s, and goes on."""
    with bench.gateway(**_NOBODY_TOLD_OFF) as gateway:

        def arrange(scene: Scene) -> None:
            scene.faults = {"SIGSTOP nats-server": partial(scene.stop_nats, _STOPPED_S)}

        scene, _seconds = await write_through_faults(
            bench, gateway, devices=100, plan=WriterPlan(messages=1_000), faults=1, seed=8,
            arrange=arrange,
        )  # fmt: skip
        checker = await check(gateway.nats_url, scene.writers)
    note = f"{scene.log.cut} closes, longest gap {scene.still_s:.1f} s"
    _judge(bench, f"nats-server stopped for {_STOPPED_S:.0f} s", scene, checker, note)


async def section_forgotten(bench: Bench) -> None:
    """nats-server is killed and stays away for longer than it remembers message ids."""
    server = NatsServer(
        bench.directory / "nats",
        jetstream={"store_dir": str(bench.directory / "js"), "sync_interval": "always"},
    )
    with server, bench.gateway(
        nats__urls=server.url, stream__duplicate_window_s=_WINDOW_S, **_NOBODY_TOLD_OFF
    ) as gateway:  # fmt: skip

        def arrange(scene: Scene) -> None:
            async def long_outage() -> None:
                await asyncio.to_thread(server.kill)
                await asyncio.sleep(2 * _WINDOW_S)
                await asyncio.to_thread(server.start)

            scene.faults = {"long outage": long_outage}

        scene, _seconds = await write_through_faults(
            bench, gateway, devices=100, plan=WriterPlan(messages=2_000), faults=10, seed=9,
            arrange=arrange,
        )  # fmt: skip
        checker = await check(server.url, scene.writers)
        found = await asyncio.to_thread(
            gateway.metric, 'tidegate_messages_settled_total{kind="lookup"}'
        )
    note = f"{found:,.0f} in doubt were found to be stored"
    _judge(bench, "ten outages of twice the duplicate window", scene, checker, note)


FORGETFUL: Final = WriterPlan(messages=500, honest_age=False, outboxes=("a", "b", "c"), forgets=200)
"""Devices with several outboxes, of which older copies come back, and a clock in 1970."""


def forgetful_faults(scene: Scene, server: NatsServer) -> None:
    """Connections cut, the gateway killed, and NATS away for longer than it remembers ids."""

    async def long_outage() -> None:
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(2 * _WINDOW_S)
        await asyncio.to_thread(server.start)

    async def long_absence() -> None:
        """Nobody is there for longer than ids are remembered; then all are back at once."""
        scene.gateway.kill()
        await asyncio.sleep(2 * _WINDOW_S)
        await asyncio.to_thread(scene.gateway.start)

    scene.faults = {
        "cut connections": scene.cut,
        "kill -9 gateway": scene.kill_gateway,
        "long absence": long_absence,
        "long outage": long_outage,
    }


async def section_forgetful(bench: Bench) -> None:
    """Devices come back with older copies of their outboxes, several each, and no clock."""
    server = NatsServer(
        bench.directory / "nats",
        jetstream={"store_dir": str(bench.directory / "js"), "sync_interval": "always"},
    )
    with server, bench.gateway(
        nats__urls=server.url, stream__duplicate_window_s=_WINDOW_S, **_NOBODY_TOLD_OFF
    ) as gateway:  # fmt: skip
        scene, _seconds = await write_through_faults(
            bench, gateway, devices=40, plan=FORGETFUL, faults=6, seed=10,
            arrange=lambda scene: forgetful_faults(scene, server),
        )  # fmt: skip
        checker = await check(server.url, scene.writers)
        looked_up = await asyncio.to_thread(gateway.metric, "tidegate_resume_lookups_total")
    faults = ", ".join(f"{count} x {name}" for name, count in sorted(scene.done.items()))
    note = f"{faults}; {looked_up:,.0f} look-ups since the last start"
    _show(bench, "older copies of three outboxes each, clocks in 1970", ("", scene, checker, note))
    bench.report.verdict("damage", _damage(checker), "0", ok=checker.clean)


async def section_network(bench: Bench) -> None:
    """40 ms each way, and devices whose connections die without the gateway hearing of it."""
    rng = random.Random(7)
    devices = 100
    with bench.gateway(**_NOBODY_TOLD_OFF) as gateway:
        async with BadNetwork.before(gateway.port, delay_s=0.04, rng=rng) as network:
            hurt = 0

            def arrange(scene: Scene) -> None:
                async def half_open() -> None:
                    nonlocal hurt
                    hurt += network.half_open(0.5)

                scene.faults = {"half-open": half_open, "cut connections": scene.cut}

            scene, _seconds = await write_through_faults(
                bench, gateway, devices=devices, plan=WriterPlan(messages=1_000), faults=10,
                seed=7, arrange=arrange, ports=[network.port],
            )  # fmt: skip
            left = gateway.status()["connections"]
            checker = await check(gateway.nats_url, scene.writers)
    note = f"{hurt} half-open, {left} connections at the end"
    _show(bench, "40 ms each way, half-open peers", ("", scene, checker, note))
    bench.report.verdict("damage", _damage(checker), "0", ok=checker.clean)
    bench.report.verdict(
        "connections nobody holds any more", max(0, left - devices), "0", ok=left <= devices
    )


SECTIONS: Final = {
    "powerloss": section_powerloss,
    "leader": section_leader,
    "disk": section_disk,
    "stopped": section_stopped,
    "forgotten": section_forgotten,
    "forgetful": section_forgetful,
    "network": section_network,
}


if __name__ == "__main__":
    run = partial(run_sections, SECTIONS)
    main_of("disasters", "Disasters, and what the checker finds.", SECTIONS, run)
