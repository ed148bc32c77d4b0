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
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import nats
import nats.errors
import nats.js.errors
import uvloop
from nats.aio.client import Client

from loadtest.devices.commanded import CommandedDevices
from loadtest.devices.credentials import Issuer
from loadtest.errors import LoadtestError, TargetError
from loadtest.lab.command_checker import Findings, check
from loadtest.lab.mishaps import kill_for
from loadtest.servers.backends import NatsServer
from loadtest.servers.gateway import GatewayServer
from loadtest.verdicts import Report
from loadtest.waiting import until_awaited

_EXPIRING_SHARE: Final = 0.1
_CANCELLED_SHARE: Final = 0.02
_SHORT_S: Final = 4.0
_LONG_S: Final = 3_600.0
_NATS_AWAY_S: Final = 2.0
_STALL_S: Final = 60.0
_START_S: Final = 180.0
_SESSIONS_PER_S: Final = 40.0
"""Sessions that all devices begin a second: two cores carry both sides of no more."""
_STAY_MIN_S: Final = 2.0
_LOOK_S: Final = 2.0
_RETRY_S: Final = 0.3
_RESULT_WAIT_S: Final = 5.0
_DEVICE_KILLS: Final = 4
"""Kills of a process of devices for each kill of the gateway."""


class Stage:
    """A gateway, its NATS, and the processes of devices."""

    def __init__(
        self,
        server: NatsServer,
        gateway: GatewayServer,
        fleets: list[CommandedDevices],
        devices: list[str],
        rng: random.Random,
    ) -> None:
        self.server = server
        self.gateway = gateway
        self.fleets = fleets
        self.devices = devices
        self.placed: dict[str, tuple[str, int]] = {}
        """Device and sequence of each command, by its id."""
        self._rng = rng
        self._connection: Client | None = None

    async def queue(self, count: int) -> None:
        """Queue so many commands, as an operator does. It goes on while NATS is away."""
        for _ in range(count):
            command_id = f"c-{len(self.placed)}"
            device = self._rng.choice(self.devices)
            short = self._rng.random() < _EXPIRING_SHARE
            self.placed[command_id] = (
                device,
                await self._put(device, command_id, _SHORT_S if short else _LONG_S),
            )
            if self._rng.random() < _CANCELLED_SHARE:
                await self._say(device, command_id, {"status": "failed", "reason": "cancelled"})

    async def _put(self, device: str, command_id: str, ttl_s: float) -> int:
        expires = datetime.now(UTC) + timedelta(seconds=ttl_s)
        entry = {"id": command_id, "type": "work", "data": 1, "expires": expires.isoformat()}
        headers = {"Nats-Msg-Id": f"default:{device}:{command_id}"}
        subject = f"commands.queue.default.{device}"
        seq = await self._publish(subject, json.dumps(entry).encode(), headers)
        assert seq is not None
        await self._say(device, command_id, {"status": "queued"}, expected="0")
        return seq

    async def _say(
        self, device: str, command_id: str, fact: dict[str, str], expected: str | None = None
    ) -> None:
        """Store a fact, unless the command has gone on meanwhile."""
        subject = f"commands.status.default.{device}.{command_id}"
        if expected is None:
            last = await self._last(subject)
            if last is None or last[1] != "queued":
                return
            expected = str(last[0])
        headers = {
            "Nats-Msg-Id": f"default:{device}:{command_id}:{fact['status']}:operator",
            "Nats-Expected-Last-Subject-Sequence": expected,
        }
        stamped = {**fact, "time": datetime.now(UTC).isoformat()}
        await self._publish(subject, json.dumps(stamped).encode(), headers)

    async def _last(self, subject: str) -> tuple[int, str] | None:
        async def look() -> tuple[int, str] | None:
            client = await nats.connect(self.server.url, allow_reconnect=False)
            try:
                found = await client.jetstream().get_last_msg("COMMANDS", subject)
            except nats.js.errors.NotFoundError:
                return None
            finally:
                await client.close()
            return found.seq or 0, json.loads(found.data or b"{}")["status"]

        while True:
            with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
                return await look()
            await asyncio.sleep(_RETRY_S)

    async def _publish(self, subject: str, data: bytes, headers: dict[str, str]) -> int | None:
        """The sequence of what is stored; None if another fact stands there already."""
        while True:
            try:
                stream = (await self._client()).jetstream(timeout=2)
                ack = await stream.publish(subject, data, headers=headers)
                return int(ack.seq)
            except nats.js.errors.BadRequestError:
                return None  # the last fact is another one
            except (nats.errors.Error, OSError, TimeoutError):
                await self.forget_client()
                await asyncio.sleep(_RETRY_S)

    async def _client(self) -> Client:
        if self._connection is None:
            self._connection = await nats.connect(self.server.url, allow_reconnect=False)
        return self._connection

    async def forget_client(self) -> None:
        """Connect anew next time."""
        client, self._connection = self._connection, None
        if client is not None:
            await client.close()

    async def waiting(self) -> int:
        """Entries of the queue."""
        stream = (await self._client()).jetstream(timeout=10)
        info = await stream.stream_info("COMMANDS", subjects_filter="commands.queue.>")
        return sum((info.state.subjects or {}).values())

    # Faults

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


async def through_faults(stage: Stage, *, commands: int, faults: list[str]) -> None:
    """Queue everything, with these faults on the way."""
    part = commands // (len(faults) + 1)
    for number, fault in enumerate([*faults, ""]):
        count = part if fault else commands - number * part
        queueing = asyncio.create_task(stage.queue(count))
        if fault:
            await asyncio.sleep(0.5)
            await getattr(stage, f"kill_{fault}")()
        await queueing


async def until_settled(stage: Stage) -> None:
    """Wait until every command has left the queue, which it does after its final status.

    Raises:
        TargetError: none has left for a minute.
    """
    least, moved_at = len(stage.placed) + 1, time.monotonic()
    while left := await stage.waiting():
        if left < least:
            least, moved_at = left, time.monotonic()
        if time.monotonic() - moved_at > _STALL_S:
            raise TargetError(f"{left:,} of {len(stage.placed):,} commands are not settled")
        await asyncio.sleep(_LOOK_S)


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
        stage = Stage(server, gateway, fleets, names, rng)
        try:
            yield stage
        finally:
            await stage.forget_client()


async def run(options: argparse.Namespace) -> int:
    """The whole run; returns the status of its report."""
    began = time.monotonic()
    report = Report()
    faults = the_faults(options.faults, random.Random(options.seed))
    with tempfile.TemporaryDirectory(prefix="tidegate-command-faults-") as name:
        async with staged(
            Path(name), devices=options.devices, processes=options.processes, seed=options.seed
        ) as stage:
            await through_faults(stage, commands=options.commands, faults=faults)
            await until_settled(stage)
            for fleet in stage.fleets:
                fleet.kill()
            given = [each for fleet in stage.fleets for each in fleet.given()]
            found = await check(stage.server.url, stage.placed, given)
    _report(report, options, found, faults, time.monotonic() - began)
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
