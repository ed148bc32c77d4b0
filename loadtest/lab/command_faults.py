"""Fault run of queued commands: `python -m loadtest.lab.command_faults`. Everything dies.

    make faults-commands                                      # 10,000 commands, 1,000 devices
    make faults-commands ARGS="--commands 500 --devices 50 --faults 3 --seed 7"

Commands are queued while devices connect and are cut at random. The gateway is killed with -9, and
so are NATS and the processes of the devices. Some commands expire, some are cancelled. A third of
the devices knows nothing of receipts. The checker (`command_checker.py`) reads the stream and the
logs of the applications: each command was given at most once and in order, and its status is true.
"""

import argparse
import asyncio
import contextlib
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import nats.errors
import uvloop

from loadtest.devices.commanded import CommandedDevices
from loadtest.devices.credentials import Issuer
from loadtest.errors import LoadtestError, TargetError
from loadtest.lab.command_checker import Findings, check
from loadtest.lab.mishaps import kill_for
from loadtest.lab.queueing import QueueingOperator
from loadtest.servers.backends import NatsServer
from loadtest.servers.gateway import GatewayServer
from loadtest.verdicts import Report
from loadtest.waiting import until_awaited

_NATS_AWAY_S: Final = 2.0
_STALL_S: Final = 60.0
_START_S: Final = 180.0
_SESSIONS_PER_S: Final = 40.0
"""Sessions that all devices begin a second: two cores carry both sides of no more."""
_STAY_MIN_S: Final = 2.0
_LOOK_S: Final = 2.0
_RESULT_WAIT_S: Final = 5.0
_DEVICE_KILLS: Final = 4
"""Kills of a process of devices for each kill of the gateway."""
_MEMORY: Final = Path("/dev/shm")  # noqa: S108  # a directory of its own is made there


class Stage:
    """A gateway, its NATS, and the processes of devices."""

    def __init__(
        self,
        server: NatsServer,
        gateway: GatewayServer,
        fleets: list[CommandedDevices],
        operator: QueueingOperator,
        rng: random.Random,
    ) -> None:
        self.gateway = gateway
        self.server = server
        self.fleets = fleets
        self.operator = operator
        self._rng = rng

    async def kill_gateway(self) -> None:
        self.gateway.kill()
        self.gateway.launch()
        # A thousand devices knock meanwhile, on the same two cores: that may take a minute.
        await until_awaited(self._serves, "a gateway that serves", _START_S)

    async def _serves(self) -> bool:
        with contextlib.suppress(OSError):
            await asyncio.to_thread(self.gateway.status)
            return True
        return False

    async def kill_nats(self) -> None:
        await kill_for(self.server, _NATS_AWAY_S)

    async def kill_devices(self) -> None:
        fleet = self._rng.choice(self.fleets)
        fleet.kill()
        fleet.start()


class Progress:
    """Lines that say how far the run is."""

    def __init__(self, report: Report) -> None:
        self._console = report.console
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long the run has taken so far."""
        return time.monotonic() - self._began

    def line(self, what: str) -> None:
        self._console.print(f"{self.seconds:5.0f} s  {what}", highlight=False)


async def through_faults(
    stage: Stage, *, commands: int, faults: list[str], progress: Progress
) -> None:
    """Queue everything, with these faults on the way."""
    part = commands // (len(faults) + 1)
    for number, fault in enumerate([*faults, ""]):
        count = part if fault else commands - number * part
        queueing = asyncio.create_task(stage.operator.queue(count))
        if fault:
            await asyncio.sleep(0.5)
            await getattr(stage, f"kill_{fault}")()
        await queueing
        done = f"kill -9 {fault}" if fault else "no more faults"
        progress.line(f"{done}; {len(stage.operator.placed):,} commands queued so far")


async def until_settled(stage: Stage, progress: Progress) -> None:
    """Wait until every command has left the queue, which it does after its final status.

    Raises:
        TargetError: none has left for a minute.
    """
    placed = len(stage.operator.placed)
    least, moved_at = placed + 1, time.monotonic()
    while left := await _waiting(stage.operator):
        if left < least:
            least, moved_at = left, time.monotonic()
            progress.line(f"{left:,} commands wait")
        if time.monotonic() - moved_at > _STALL_S:
            raise TargetError(f"{left:,} of {placed:,} commands are not settled")
        await asyncio.sleep(_LOOK_S)


async def _waiting(operator: QueueingOperator) -> int:
    """Entries of the queue; while a busy server does not say so, they are unknown, not none."""
    with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
        return await operator.waiting()
    return sys.maxsize


def the_faults(count: int, rng: random.Random) -> list[str]:
    """So many kills of the gateway, four times as many of devices, and some of NATS, mixed."""
    kinds = (
        ["gateway"] * count + ["devices"] * _DEVICE_KILLS * count + ["nats"] * max(1, count // 2)
    )
    rng.shuffle(kinds)
    return kinds


@contextlib.asynccontextmanager
async def staged(
    directory: Path, *, devices: int, processes: int, seed: int
) -> AsyncIterator[Stage]:
    """Everything started."""
    rng = random.Random(seed)
    issuer = Issuer(directory / "jwks.json")
    names = [f"veh-{number}" for number in range(devices)]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(NatsServer(directory / "nats"))
        gateway = GatewayServer(
            directory / "gateway",
            jwks_file=issuer.jwks_file,
            nats__urls=server.url,
            stream__durability="stream",
            log__level="warning",
            admission__rate_per_s=2_000.0,
            admission__rate_floor_per_s=2_000.0,
            admission__device_knock_burst=10_000,
            admission__device_knocks_per_s=1_000.0,
            commands__result_wait_s=_RESULT_WAIT_S,
            session__first_retry_min_ms=100,
        )
        stack.enter_context(gateway)
        fleets = []
        for number in range(processes):
            mine = names[number::processes]
            fleet = CommandedDevices(
                directory / f"devices-{number}",
                port=gateway.port,
                tokens={name: issuer.token(name) for name in mine},
                receipts=number % 3 != 0,
                stay_s=max(_STAY_MIN_S, devices / _SESSIONS_PER_S),
                seed=seed * 1_000 + number * 100,
            )
            stack.callback(fleet.kill)
            fleet.start()
            fleets.append(fleet)
        operator = QueueingOperator(server.url, names, rng)
        async with contextlib.aclosing(operator):
            yield Stage(server, gateway, fleets, operator, rng)


def _directory() -> str | None:
    """Where the run keeps its files: in memory, if there is such a place; None for the default.

    A kill loses nothing that was written, whether it was synced or not. So this run proves the same
    on a disk as in memory, but each command costs outboxes and stream several syncs, and a disk
    with a few hundred a second would be all that it measures.
    """
    return str(_MEMORY) if os.access(_MEMORY, os.W_OK) else None


async def run(options: argparse.Namespace) -> int:
    """The whole run; returns the status of its report."""
    report = Report()
    progress = Progress(report)
    faults = the_faults(options.faults, random.Random(options.seed))
    with tempfile.TemporaryDirectory(prefix="tidegate-command-faults-", dir=_directory()) as name:
        async with staged(
            Path(name), devices=options.devices, processes=options.processes, seed=options.seed
        ) as stage:
            await through_faults(stage, commands=options.commands, faults=faults, progress=progress)
            await until_settled(stage, progress)
            for fleet in stage.fleets:
                fleet.kill()
            given = [each for fleet in stage.fleets for each in fleet.given()]
            found = await check(stage.server.url, stage.operator.placed, given)
    _report(report, options, found, faults, progress.seconds)
    return report.status()


def _report(
    report: Report,
    options: argparse.Namespace,
    found: Findings,
    faults: list[str],
    seconds: float,
) -> None:
    report.table(
        "Queued commands",
        ("", ""),
        [
            ("commands", f"{found.commands:,}"),
            ("devices", f"{options.devices:,}"),
            *((status, f"{count:,}") for status, count in sorted(found.statuses.items())),
            ("given to an application", f"{found.given:,}"),
            *((f"kill -9 {kind}", f"{faults.count(kind)} x") for kind in sorted(set(faults))),
            ("seconds", f"{seconds:.0f}"),
            ("seed", f"{options.seed}"),
        ],
    )
    for example in found.examples:
        report.console.print(example)
    for what in ("unsettled", "twice", "reordered", "illegal", "untrue", "left"):
        report.none(what, getattr(found, what))


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description="Each command is given at most once, in order.")
    parser.add_argument("--commands", type=int, default=10_000)
    parser.add_argument("--devices", type=int, default=1_000)
    parser.add_argument("--processes", type=int, default=9, help="of devices")
    parser.add_argument("--faults", type=int, default=5, help="kills of the gateway")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(arguments)


def main() -> None:
    """The command line."""
    try:
        sys.exit(uvloop.run(run(options_of())))
    except LoadtestError as exc:
        sys.exit(f"faults-commands: {exc}")


if __name__ == "__main__":
    main()
