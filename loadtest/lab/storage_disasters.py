"""Disasters of the disk: the power goes, the disk is full."""

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final

from loadtest.benches.rig import NO_KNOCK_LIMIT, Bench
from loadtest.devices.writers import WriterPlan
from loadtest.errors import LimitError
from loadtest.lab import aftermath
from loadtest.lab.scene import Fault, Scene, Trial, check, write_through_faults
from loadtest.servers.gateway import GatewayServer
from loadtest.servers.lossyfs import LossyMount
from loadtest.servers.process import send_signal
from loadtest.waiting import until_awaited

_DISK_BYTES: Final = 64 * 2**20
_FULL_S: Final = 5.0
_ALARM_TIMEOUT_S: Final = 60.0


class Machine:
    """A gateway and its embedded NATS on a disk that can lose power."""

    def __init__(self, bench: Bench, durability: str) -> None:
        self.gateway = bench.gateway(stream__durability=durability, **NO_KNOCK_LIMIT)
        self._stack = ExitStack()
        directory = self.gateway.directory
        self._disk = LossyMount(directory / "data", directory / "kept")

    def boot(self) -> None:
        """Mount the disk and start the gateway.

        Raises:
            LimitError: this machine cannot mount the disk.
            TargetError: the gateway does not start.
        """
        self._stack.enter_context(self._disk)
        try:
            self.gateway.start()
        except BaseException:  # an interrupt too: the disk must not stay mounted
            self._stack.close()
            raise

    def lose_power(self) -> None:
        """Every process dies, and the disk keeps only what was synced."""
        pids = self.gateway.pids
        self._disk.power_off()
        send_signal(pids, signal.SIGKILL)
        self.gateway.kill()
        self._stack.close()

    def shut_down(self) -> None:
        """Stop the gateway and unmount the disk."""
        self.gateway.stop()
        self._stack.close()

    def power_loss(self, _scene: Scene) -> Mapping[str, Fault]:
        """The one fault of this scene."""
        return {"power loss": self._lose_power_and_boot}

    async def _lose_power_and_boot(self) -> None:
        await asyncio.to_thread(self.lose_power)
        await asyncio.to_thread(self.boot)


async def section_powerloss(bench: Bench) -> None:
    """The power goes, several times; then with the weaker durability, as the control."""
    strong = await _powerloss(bench, "fsync")
    weak = await _powerloss(bench, "stream")
    aftermath.show(bench, "power lost 5 times under 50 writers", strong, weak)
    bench.report.none("lost with fsync", strong[2].lost.count)
    lost = weak[2].lost.count
    bench.report.verdict(
        "lost with the weaker durability (the control)", lost, "more than 0", ok=lost > 0
    )


async def _powerloss(bench: Bench, durability: str) -> aftermath.Run:
    machine = Machine(bench, durability)
    trial = Trial(
        devices=50, plan=WriterPlan(messages=1_000), faults=5, seed=4, kinds=machine.power_loss
    )
    machine.boot()
    try:
        scene, _seconds = await write_through_faults(bench, machine.gateway, trial)
        said = machine.gateway.status()["stream"]["durability"]
        checker = await check(machine.gateway.nats_url, scene)
    finally:
        machine.shut_down()
    return f"durability {durability}", scene, checker, f"/status says {said}"


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
        subprocess.run(["umount", "--lazy", mountpoint], check=False)  # noqa: S607  # of the PATH


async def section_disk(bench: Bench) -> None:
    """Something else fills the disk: nothing is stored until there is room, nothing restarts."""
    gateway = bench.gateway(**NO_KNOCK_LIMIT)
    data = gateway.directory / "data"
    alarms: list[float] = []

    def faults(_scene: Scene) -> Mapping[str, Fault]:
        return {"disk full": partial(_fill_disk, gateway, data / "ballast", alarms)}

    trial = Trial(devices=50, plan=WriterPlan(messages=1_000), faults=3, seed=6, kinds=faults)
    with _small_disk(data, _DISK_BYTES), gateway:
        scene, _seconds = await write_through_faults(bench, gateway, trial)
        checker = await check(gateway.nats_url, scene)
    note = f"{scene.writers.log.cut} closes, alarm after {max(alarms):.1f} s"
    aftermath.judge(bench, "the disk full three times", scene, checker, note)
    bench.report.at_most("alarm, s", max(alarms), 10)


async def _fill_disk(gateway: GatewayServer, ballast: Path, alarms: list[float]) -> None:
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(2**16))
    full_at = monotonic()

    async def held() -> bool:
        return bool(await asyncio.to_thread(gateway.metric, "tidegate_held"))

    await until_awaited(held, "the metric that says the disk is full", _ALARM_TIMEOUT_S)
    alarms.append(monotonic() - full_at)
    await asyncio.sleep(_FULL_S)
    await asyncio.to_thread(ballast.unlink)
