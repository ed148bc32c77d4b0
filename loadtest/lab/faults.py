"""Fault runs: writers write, processes die, and the checker reads the stream back.

The command is `python -m loadtest.lab.faults`:

    make faults                                       # a million messages, 20 random faults
    make faults ARGS="--messages 50000 --faults 5 --seed 7"
    make faults ARGS="--durability stream --alone"    # a node without Redis links its batches
    make faults ARGS="--messages 200000 --workers 3"  # several workers, which die as well

A run is its seed: the same seed picks the same faults in the same order.
"""

import argparse
import contextlib
import random
import signal
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import uvloop

from loadtest.benches.rig import NO_KNOCK_LIMIT, Bench
from loadtest.checker import Checker
from loadtest.devices.writers import WriterPlan
from loadtest.errors import LoadtestError
from loadtest.lab.mishaps import kill_for, pause
from loadtest.lab.scene import (
    PAUSE_S,
    SETTLE_TIMEOUT_S,
    Fault,
    Scene,
    Trial,
    check,
    usual_faults,
    write_through_faults,
)
from loadtest.servers.backends import RedisServer
from loadtest.servers.clock import FakeClock
from loadtest.servers.gateway import GatewayServer
from loadtest.servers.process import send_signal
from loadtest.servers.workers import WorkersServer
from loadtest.waiting import until

_JUMPS_S = (-1_800, 0, 1_800)
"""Half an hour early, right, half an hour late: credentials live longer than that."""


def all_faults(
    redis: RedisServer | None, clock: FakeClock | None, scene: Scene
) -> Mapping[str, Fault]:
    """The usual faults, those of workers if there are, of Redis, and of a clock that can be set."""
    faults = dict(usual_faults(scene))
    if isinstance(scene.gateway, WorkersServer):
        faults |= worker_faults(scene.gateway, scene.rng)
    if redis is not None:
        faults["kill -9 redis-server"] = partial(kill_for, redis, PAUSE_S)
    if clock is not None:
        faults["clock jump"] = partial(_jump, clock, scene)
    return faults


def worker_faults(gateway: WorkersServer, rng: random.Random) -> dict[str, Fault]:
    """What can happen to the workers of a gateway and to its embedded Redis."""

    async def any_worker() -> list[int]:
        """One of those that live; after several kills there may be none for a moment."""
        await until(lambda: bool(gateway.worker_pids), "a worker", SETTLE_TIMEOUT_S)
        return [rng.choice(gateway.worker_pids)]

    async def kill_worker() -> None:
        send_signal(await any_worker(), signal.SIGKILL)

    async def stop_worker() -> None:
        await pause(await any_worker(), PAUSE_S)

    async def kill_redis() -> None:
        send_signal(gateway.redis_pids, signal.SIGKILL)

    async def restart_workers() -> None:
        gateway.restart_workers()

    return {
        "kill -9 worker": kill_worker,
        "SIGSTOP worker": stop_worker,
        "kill -9 redis-server": kill_redis,
        "rolling restart": restart_workers,
    }


async def _jump(clock: FakeClock, scene: Scene) -> None:
    clock.set(scene.rng.choice(_JUMPS_S))


async def run(options: argparse.Namespace) -> int:
    """One run.

    Returns:
        1 if a message was hurt, else 0.

    Raises:
        LoadtestError: it could not be run.
    """
    with tempfile.TemporaryDirectory(prefix="tidegate-faults-") as directory:
        bench = Bench.below(Path(directory))
        clock = FakeClock(Path(directory)) if FakeClock.library() is not None else None
        if clock is None:
            bench.report.console.print(
                "no clock jumps without libfaketime: apt-get install faketime"
            )
        with contextlib.ExitStack() as stack:
            environment = clock.environment if clock is not None else None
            settings: dict[str, object] = {
                "stream__durability": options.durability,
                **NO_KNOCK_LIMIT,
            }
            redis: RedisServer | None = None
            gateway: GatewayServer
            if options.workers > 1:
                gateway = bench.workers(options.workers, environment, **settings)
            else:
                if not options.alone:
                    redis = stack.enter_context(RedisServer(bench.fresh_directory("redis")))
                    settings["cluster__redis_url"] = redis.url
                gateway = bench.gateway(environment, **settings)
            stack.enter_context(gateway)
            trial = Trial(
                devices=options.devices,
                plan=WriterPlan(messages=options.messages // options.devices),
                faults=options.faults,
                seed=options.seed,
                kinds=partial(all_faults, redis, clock),
            )
            scene, seconds = await write_through_faults(bench, gateway, trial)
            checker = await check(gateway.nats_url, scene)
    return _judge(bench, options, scene, checker, seconds)


def _judge(
    bench: Bench, options: argparse.Namespace, scene: Scene, checker: Checker, seconds: float
) -> int:
    rows = [
        ("acknowledged", f"{scene.writers.acked:,}"),
        ("stored", f"{checker.stored:,}"),
        ("faults", ", ".join(f"{count} x {name}" for name, count in sorted(scene.done.items()))),
        ("seconds, seed", f"{seconds:.0f}, {options.seed}"),
        *(
            (name, f"{found.count:,} {' '.join(found.examples)}")
            for name, found in checker.findings()
        ),
    ]
    more = ", without Redis" if options.alone else ""
    if options.workers > 1:
        more = f", {options.workers} workers"
    title = f"{options.devices} devices, durability {options.durability}{more}"
    bench.report.table(title, ("", ""), rows)
    for name, found in checker.findings():
        bench.report.none(name, found.count)
    return bench.report.status()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description="Write through faults; nothing acknowledged may be lost, doubled or reordered."
    )
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--durability", choices=("fsync", "stream"), default="fsync")
    parser.add_argument("--alone", action="store_true", help="a node without Redis")
    parser.add_argument("--workers", type=int, default=1, help="of the gateway, on one port")
    options = parser.parse_args()
    if options.workers > 1 and options.alone:
        parser.error("workers always have a Redis")
    if options.messages < options.devices:
        parser.error("--messages must be at least --devices")
    try:
        sys.exit(uvloop.run(run(options)))
    except LoadtestError as exc:
        sys.exit(f"faults: {exc}")


if __name__ == "__main__":
    main()
