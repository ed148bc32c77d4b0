"""Fault runs: writers write, processes die, and the checker reads the stream back.

The command is `python -m loadtest.lab.faults`:

    make faults                                       # a million messages, 20 random faults
    make faults ARGS="--messages 50000 --faults 5 --seed 7"

A run is its seed: the same seed picks the same faults in the same order.
"""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Final

import uvloop

from loadtest.benches.rig import Bench
from loadtest.checker import Checker, read_stream
from loadtest.devices.credentials import Issuer
from loadtest.devices.storm import StormLog
from loadtest.devices.writers import Writer, WriterPlan
from loadtest.errors import LoadtestError, TargetError
from loadtest.servers.targets import GatewayServer, RedisServer
from loadtest.verdicts import Report

_SETTLE_TIMEOUT_S: Final = 300.0
_PAUSE_S: Final = 3.0


class FakeClock:
    """The wall clock of processes that run below libfaketime; where it is installed."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "clock"
        self.set(0)

    @staticmethod
    def library() -> Path | None:
        """Where libfaketime is."""
        return next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)

    def set(self, offset_s: int) -> None:
        """So much ahead of the real one from now on."""
        aside = self._file.with_suffix(".new")
        aside.write_text(f"{offset_s:+d}\n")
        aside.replace(self._file)  # never read half written

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to live by this clock."""
        return {
            "LD_PRELOAD": str(self.library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


class Scene:
    """A gateway, its writers, and the faults that can be done to them."""

    def __init__(
        self, gateway: GatewayServer, writers: Sequence[Writer], log: StormLog, rng: random.Random
    ) -> None:
        self.gateway = gateway
        self.writers = writers
        self.log = log
        self._rng = rng
        self.done: Counter[str] = Counter()
        self.still_s = 0.0
        """The longest time in which nothing was acknowledged."""
        self.faults: dict[str, Callable[[], Awaitable[None]]] = {
            "kill -9 gateway": self.kill_gateway,
            "kill -9 nats-server": self.kill_nats,
            "SIGSTOP nats-server": self.stop_nats,
            "cut connections": self.cut,
        }
        self.redis: RedisServer | None = None
        self.clock: FakeClock | None = None

    def add_redis(self, redis: RedisServer) -> None:
        """The gateway is one of a fleet over this Redis."""
        self.redis = redis
        self.faults["kill -9 redis-server"] = self.kill_redis

    def add_clock(self, clock: FakeClock) -> None:
        """The gateway's wall clock can be set."""
        self.clock = clock
        self.faults["clock jump"] = self.jump

    async def break_something(self) -> None:
        name = self._rng.choice(sorted(self.faults))
        self.done[name] += 1
        await self.faults[name]()

    async def kill_gateway(self) -> None:
        self.gateway.kill()
        await asyncio.to_thread(self.gateway.start)

    async def kill_nats(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._nats_pid, signal.SIGKILL)

    async def stop_nats(self, seconds: float = _PAUSE_S) -> None:
        pid = self._nats_pid
        with contextlib.suppress(ProcessLookupError):  # the fault before may have been its death
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(seconds)
            os.kill(pid, signal.SIGCONT)

    async def cut(self) -> None:
        for writer in self.writers:
            if writer.transport is not None and self._rng.random() < 0.5:
                writer.transport.abort()

    async def kill_redis(self) -> None:
        assert self.redis is not None
        self.redis.kill()
        await asyncio.sleep(_PAUSE_S)
        await asyncio.to_thread(self.redis.start)

    async def jump(self) -> None:
        """To half an hour early, right, or half an hour late: credentials here live longer."""
        assert self.clock is not None
        self.clock.set(self._rng.choice((-1_800, 0, 1_800)))

    @property
    def acked(self) -> int:
        """Messages acknowledged so far."""
        return sum(writer.acked for writer in self.writers)

    async def watch_acks(self) -> None:
        """Keep `still_s`, until cancelled."""
        seen, since = self.acked, monotonic()
        while True:
            await asyncio.sleep(0.02)
            now, acked = monotonic(), self.acked
            if acked > seen:
                seen, since = acked, now
            self.still_s = max(self.still_s, now - since)

    @property
    def _nats_pid(self) -> int:
        return self.gateway.pids[1]


async def write_through_faults(
    bench: Bench,
    gateway: GatewayServer,
    *,
    devices: int,
    plan: WriterPlan,
    faults: int,
    seed: int,
    arrange: Callable[[Scene], None] = lambda _scene: None,
    ports: Sequence[int] = (),
) -> tuple[Scene, float]:
    """Write everything, with so many faults on the way, each once its share is acknowledged.

    Args:
        bench: mints the credentials.
        gateway: running.
        devices: that write.
        plan: what each writes.
        faults: how many.
        seed: of the run.
        arrange: may change the scene before it begins.
        ports: where devices knock, if not at the gateway itself.

    Returns:
        The scene, and how long it took in seconds.

    Raises:
        TargetError: not everything was acknowledged in time.
    """
    rng = random.Random(seed)
    left = devices
    finished = asyncio.Event()

    def on_done() -> None:
        nonlocal left
        left -= 1
        if not left:
            finished.set()

    log = StormLog()
    writers = [
        Writer(
            name, bench.issuer.token(name), ports or [gateway.port], plan=plan, log=log,
            on_done=on_done, rng=random.Random(seed * 100_000 + number),
        )
        for number, name in enumerate(f"veh-{n}" for n in range(devices))
    ]  # fmt: skip
    scene = Scene(gateway, writers, log, rng)
    arrange(scene)
    began = monotonic()
    for writer in writers:
        writer.begin()
    watching = asyncio.create_task(scene.watch_acks())
    total = devices * plan.messages * len(plan.outboxes)
    try:
        for number in range(1, faults + 1):
            mark = total * number // (faults + 1)
            await _until(lambda mark=mark: scene.acked >= mark, finished)  # type: ignore[misc]
            await scene.break_something()
        async with asyncio.timeout(_SETTLE_TIMEOUT_S):
            await finished.wait()
    except TimeoutError:
        raise TargetError(f"{scene.acked:,} of {total:,} acknowledged") from None
    finally:
        watching.cancel()
        for writer in writers:
            writer.stop()
    return scene, monotonic() - began


async def _until(condition: Callable[[], bool], finished: asyncio.Event) -> None:
    async with asyncio.timeout(_SETTLE_TIMEOUT_S):
        while not condition() and not finished.is_set():  # noqa: ASYNC110  # of what others count
            await asyncio.sleep(0.02)


async def check(nats_url: str, writers: Sequence[Writer]) -> Checker:
    """Read the whole stream and compare."""
    checker = Checker()
    async for device, seq, data in read_stream(nats_url):
        checker.take(device, seq, data)
    acknowledged: dict[str, int] = {}
    for writer in writers:
        acknowledged |= writer.settled
    checker.finish(acknowledged)
    return checker


async def run(options: argparse.Namespace) -> int:
    report = Report()
    with tempfile.TemporaryDirectory(prefix="tidegate-faults-") as directory:
        bench = Bench(Path(directory), Issuer(Path(directory) / "jwks.json"), 0.0, report)
        settings = {
            "stream__durability": options.durability,
            "admission__device_knock_burst": 10_000,
        }
        plan = WriterPlan(messages=options.messages // options.devices)
        clock = FakeClock(Path(directory)) if FakeClock.library() is not None else None
        if clock is None:
            report.console.print("no clock jumps without libfaketime: apt-get install faketime")
        with RedisServer(Path(directory) / "redis") as redis, ExitStack() as stack:
            gateway = bench.gateway(cluster__redis_url=redis.url, **settings)
            if clock is not None:
                gateway.more_environment = clock.environment

            def arrange(scene: Scene) -> None:
                scene.add_redis(redis)
                if clock is not None:
                    scene.add_clock(clock)

            stack.enter_context(gateway)
            scene, seconds = await write_through_faults(
                bench, gateway, devices=options.devices, plan=plan, faults=options.faults,
                seed=options.seed, arrange=arrange,
            )  # fmt: skip
            checker = await check(gateway.nats_url, scene.writers)
    rows = [
        ("acknowledged", f"{scene.acked:,}"),
        ("stored", f"{checker.stored:,}"),
        ("faults", ", ".join(f"{count} x {name}" for name, count in sorted(scene.done.items()))),
        ("seconds, seed", f"{seconds:.0f}, {options.seed}"),
        *(
            (name, f"{found.count:,} {' '.join(found.examples)}")
            for name, found in checker.findings()
        ),
    ]
    report.table(f"{options.devices} devices, durability {options.durability}", ("", ""), rows)
    for name, found in checker.findings():
        report.verdict(name, found.count, "0", ok=found.count == 0)
    return 1 if report.failed else 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Nothing acknowledged is lost, doubled, reordered."
    )
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--durability", choices=("fsync", "stream"), default="fsync")
    options = parser.parse_args()
    if options.messages < options.devices:
        parser.error("fewer messages than devices")
    try:
        sys.exit(uvloop.run(run(options)))
    except LoadtestError as exc:
        sys.exit(f"faults: {exc}")


if __name__ == "__main__":
    main()
