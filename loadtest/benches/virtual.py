"""What a storm of millions in virtual time costs: `tidegate simulate` as operators call it."""

import asyncio
import resource
import sys
from typing import Final

from loadtest.benches.rig import Bench
from loadtest.errors import TargetError

_DEVICES_A_SECOND: Final = 1_000_000
"""Of `--seconds`: ten make the ten million of the objective; fewer are judged in proportion."""
_CPU_US_MAX: Final = 30.0
_MEMORY_GIB_MAX: Final = 8.0
_PROGRAM: Final = "from gateway.cli import main; main()"


async def section_simulate(bench: Bench) -> None:
    """`tidegate simulate --devices 10000000` on one core: CPU time, and its largest memory."""
    devices = int(bench.seconds * _DEVICES_A_SECOND)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-c", _PROGRAM, "simulate", "--devices", str(devices)
    )
    if await process.wait():
        raise TargetError("tidegate simulate failed")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    report = bench.report
    report.at_most(
        f"CPU of {devices:,} simulated devices", cpu_s, devices * _CPU_US_MAX / 1e6, unit=" s"
    )
    report.at_most("its memory", after.ru_maxrss / 2**20, _MEMORY_GIB_MAX, unit=" GiB")
