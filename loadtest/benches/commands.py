"""What queued commands cost the messages of connected devices."""

import asyncio
import itertools
import json
import statistics
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import nats
from nats.aio.client import Client

from loadtest.benches.rig import Bench
from loadtest.devices.answering import Answered, answering_fleet
from loadtest.devices.limits import require_descriptors
from loadtest.devices.pace import at_rate
from loadtest.devices.steady import SteadyDevices
from loadtest.servers.gateway import GatewayServer
from loadtest.waiting import until

_CASES: Final = (("fsync", 100.0), ("stream", 100.0), ("stream", 500.0))
"""Durability and commands a second. With fsync each command is six syncs, so a disk with a thousand
syncs a second takes no 500 commands a second."""
_JUDGED_PER_S: Final = 100.0
"""A rate that two cores, which carry the load generator too, can take beside the messages."""
_DELIVERIES_PER_S: Final = 1_000.0
"""The gateway's own bound must not be what is measured."""
_COMMANDED: Final = 500
"""Devices that are given commands."""
_SENDING: Final = 1_000
_MESSAGES_PER_S: Final = 2_000.0
_CONNECT_PER_S: Final = 500.0
_TURNS: Final = (False, True, True, False) * 2
_REST_S: Final = 1.0
_SETTLE_TIMEOUT_S: Final = 60.0


@dataclass(slots=True)
class _Side:
    """What was measured in all turns with commands, or in all without."""

    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    commands: int = 0


class _Operator:
    """Queues commands as `tidegate command --queue` does: entry and fact `queued` in one batch."""

    def __init__(
        self, client: Client, devices: list[str], per_s: float, answered: Answered
    ) -> None:
        self._client = client
        self._per_s = per_s
        self._devices = itertools.cycle(devices)
        self._answered = answered
        self._numbers = itertools.count()
        self._expires = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        self.queued = 0

    async def queue_for(self, seconds: float) -> None:
        """Queue commands for so long."""
        due: asyncio.Queue[int] = asyncio.Queue()
        pace = asyncio.create_task(at_rate(self._per_s, due.put_nowait))
        try:
            async with asyncio.timeout(seconds):
                while True:
                    await due.get()
                    await self._queue_one()
        except TimeoutError:
            pass
        finally:
            pace.cancel()
            await asyncio.gather(pace, return_exceptions=True)

    async def _queue_one(self) -> None:
        """Queue one, without waiting for the stream's answer."""
        command_id, device = f"c-{next(self._numbers)}", next(self._devices)
        self._answered.begun(command_id)
        self.queued += 1
        entry = {"id": command_id, "type": "door.lock", "data": 1, "expires": self._expires}
        fact = {"status": "queued", "time": self._expires}
        batch = {"Nats-Batch-Id": command_id}
        await self._client.publish(
            f"commands.queue.default.{device}",
            json.dumps(entry).encode(),
            headers={
                **batch, "Nats-Batch-Sequence": "1",
                "Nats-Msg-Id": f"default:{device}:{command_id}",
            },
        )  # fmt: skip
        await self._client.publish(
            f"commands.status.default.{device}.{command_id}",
            json.dumps(fact).encode(),
            headers={
                **batch, "Nats-Batch-Sequence": "2", "Nats-Batch-Commit": "1",
                "Nats-Expected-Last-Subject-Sequence": "0",
            },
        )  # fmt: skip


async def section_commands(bench: Bench) -> None:
    """1,000 devices send 2 msg/s each; in every other turn 500 others are given commands."""
    for durability, per_s in _CASES:
        await _measure(bench, durability, per_s)


async def _measure(bench: Bench, durability: str, per_s: float) -> None:
    require_descriptors(2 * (_SENDING + _COMMANDED))
    credentials = bench.credentials(_COMMANDED, "told")
    answered, sides = Answered(), {True: _Side(), False: _Side()}
    settings = {
        "stream__durability": durability,
        "commands__deliveries_per_s": _DELIVERIES_PER_S,
    }
    with bench.gateway(**settings) as gateway:
        client = await nats.connect(gateway.nats_url)
        operator = _Operator(client, [name for name, _token in credentials], per_s, answered)
        steady = SteadyDevices(
            gateway.port,
            bench.credentials(_SENDING, "sends"),
            rate_per_s=_MESSAGES_PER_S,
            connect_per_s=_CONNECT_PER_S,
        )
        async with answering_fleet(credentials, answered).connected(gateway.port), steady:
            for with_commands in _TURNS:
                await asyncio.sleep(_REST_S)
                await _turn(
                    bench.seconds, gateway, steady, operator if with_commands else None,
                    sides[with_commands],
                )  # fmt: skip
                await until(
                    lambda: answered.settled >= operator.queued,
                    f"{operator.queued:,} results settled",
                    _SETTLE_TIMEOUT_S,
                )
        await client.close()
    _report(
        bench, f"{per_s:g} commands/s, {durability}", sides, answered, judged=per_s <= _JUDGED_PER_S
    )


async def _turn(
    seconds: float,
    gateway: GatewayServer,
    steady: SteadyDevices,
    operator: _Operator | None,
    side: _Side,
) -> None:
    await steady.seen()
    cpu_s, before = gateway.cpu_s(), operator.queued if operator is not None else 0
    if operator is None:
        await asyncio.sleep(seconds)
    else:
        await operator.queue_for(seconds)
        side.commands += operator.queued - before
    seen = await steady.seen()
    side.cpu_s += gateway.cpu_s() - cpu_s
    side.p50_ms.append(seen.p50_ms)
    side.p99_ms.append(seen.p99_ms)


def _report(
    bench: Bench, case: str, sides: dict[bool, _Side], answered: Answered, *, judged: bool
) -> None:
    commands, none = sides[True], sides[False]
    bench.report.table(
        f"{_SENDING:,} devices send {_MESSAGES_PER_S:,.0f} msg/s; {case} for {_COMMANDED} others "
        f"in every other turn of {bench.seconds:g} s",
        ("turns", "ack p50 ms, median", "ack p99 ms, median", "ack p99 ms, each"),
        [
            (
                name,
                f"{statistics.median(side.p50_ms):.1f}",
                f"{statistics.median(side.p99_ms):.1f}",
                " ".join(f"{each:.1f}" for each in side.p99_ms),
            )
            for name, side in (("no commands", none), ("commands", commands))
        ],
    )
    seconds = bench.seconds * _TURNS.count(True)
    waits = statistics.quantiles(answered.waits_s, n=100)
    cpu_us = (commands.cpu_s - none.cpu_s) / commands.commands * 1e6
    bench.report.console.print(
        f"  {commands.commands:,} commands, {commands.commands / seconds:,.0f}/s; at the device "
        f"after {waits[49] * 1000:.0f} ms (p50), {waits[98] * 1000:.0f} ms (p99); "
        f"{cpu_us:.0f} us of CPU each, gateway and nats-server\n"
    )
    ratio = statistics.median(commands.p99_ms) / statistics.median(none.p99_ms)
    what = f"ack p99, {case} / none"
    if judged:
        bench.report.at_most(what, ratio, 1.3)
    else:
        bench.report.console.print(f"  {what}: [bold]{ratio:.2f}[/] (no objective)\n")
