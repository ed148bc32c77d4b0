"""Fault runs: writers write, processes die, and the checker reads the stream back.

The command is `python -m loadtest.lab.faults`:

    make faults                                       # a million messages, 20 random faults
    make faults ARGS="--messages 50000 --faults 5 --seed 7"
    make faults ARGS="--durability stream --alone"    # a node without Redis links its batches

A run is its seed: the same seed picks the same faults in the same order.
"""

import argparse
import contextlib
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
from loadtest.lab.mishaps import kill_for
from loadtest.lab.scene import (
    PAUSE_S,
    Fault,
    Scene,
    Trial,
    check,
    usual_faults,
    write_through_faults,
)
from loadtest.servers.backends import RedisServer
from loadtest.servers.clock import FakeClock

_JUMPS_S = (-1_800, 0, 1_800)
"""Half an hour early, right, half an hour late: credentials live longer than that."""


def all_faults(
    redis: RedisServer | None, clock: FakeClock | None, scene: Scene
) -> Mapping[str, Fault]:
    """The usual faults, those of Redis, and those of the gateway's wall clock if it can be set."""
    faults = dict(usual_faults(scene))
    if redis is not None:
        faults["kill -9 redis-server"] = partial(kill_for, redis, PAUSE_S)
    if clock is not None:
        faults["clock jump"] = partial(_jump, clock, scene)
    return faults


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
            redis, fleet = None, {}
            if not options.alone:
                redis = stack.enter_context(RedisServer(bench.fresh_directory("redis")))
                fleet = {"cluster__redis_url": redis.url}
            gateway = stack.enter_context(
                bench.gateway(
                    clock.environment if clock is not None else None,
                    stream__durability=options.durability,
                    **fleet,
                    **NO_KNOCK_LIMIT,
                )
            )
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
    alone = ", without Redis" if options.alone else ""
    title = f"{options.devices} devices, durability {options.durability}{alone}"
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
    options = parser.parse_args()
    if options.messages < options.devices:
        parser.error("--messages must be at least --devices")
    try:
        sys.exit(uvloop.run(run(options)))
    except LoadtestError as exc:
        sys.exit(f"faults: {exc}")


if __name__ == "__main__":
    main()
