"""A fleet whose clocks are wrong, on real processes: `python -m loadtest.lab.clocks [SECTION...]`.

Needs libfaketime (`apt-get install faketime`). The objectives: admissions keep to R, and no device
is told to wait for longer than the devices before it take.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from loadtest.benches.cluster import Nodes
from loadtest.benches.rig import Bench, Section
from loadtest.benches.sections import main_of_sections
from loadtest.devices.crowd import Crowd
from loadtest.devices.limits import require_descriptors
from loadtest.errors import TargetError
from loadtest.servers.clock import FakeClock

_COUNT: Final = 2_000
_RATE: Final = 100
"""Low, so that the machine does not limit admissions."""
_OFF_MAX: Final = 0.03
_LEAD_SLACK_S: Final = 2.0


def _clock(directory: Path, name: str, ahead_s: int) -> FakeClock:
    if FakeClock.library() is None:
        raise TargetError("no libfaketime: apt-get install faketime")
    place = directory / f"clock-{name}"
    place.mkdir(parents=True, exist_ok=True)
    clock = FakeClock(place)
    clock.set(ahead_s)
    return clock


async def _storm(
    bench: Bench,
    name: str,
    clocks: Mapping[str, FakeClock],
    midway: Callable[[], None] | None = None,
) -> tuple[str, str, str, str, str]:
    """One storm over three nodes: prints verdicts, returns its row of the table."""
    expected_s = _COUNT / _RATE
    require_descriptors(_COUNT + 2_000)
    with ExitStack() as stack:
        environments = {name: clock.environment for name, clock in clocks.items()}
        nodes = Nodes(bench, stack, _RATE, clocks=environments)
        await nodes.settle()
        crowd = Crowd(bench.issuer, _COUNT, nodes.ports, "ticket", first_retry_ms=2_000)
        running = asyncio.create_task(crowd.run(120.0))
        if midway is not None:
            await asyncio.sleep(expected_s * 0.3)
            midway()
        complete = await running
        await crowd.stop()
    log = crowd.log
    rate = crowd.admitted_between(2.0, expected_s * 0.9)
    off, told_s = abs(rate / _RATE - 1), log.told_max_s
    lead_s = expected_s * 1.01 + _LEAD_SLACK_S
    bench.report.verdict(
        f"{name}: off R by", off, f"at most {_OFF_MAX}", ok=off <= _OFF_MAX and complete
    )
    bench.report.verdict(
        f"{name}: longest wait told, s",
        told_s,
        f"at most the lead ({lead_s:.0f}), no ticket dishonoured",
        ok=told_s <= lead_s and not log.dishonoured,
    )
    recovery = crowd.recovery_over(expected_s)
    return name, f"{off:.3f}", f"{told_s:.1f}", f"{recovery:.3f}", str(log.dishonoured)


def _show(bench: Bench, title: str, rows: list[tuple[str, str, str, str, str]]) -> None:
    head = ("", "off R", "longest wait told, s", "recovery / (N/R)", "tickets dishonoured")
    bench.report.table(title, head, rows)


async def section_nodes(bench: Bench) -> None:
    """A node an hour ahead, an hour behind, 30 s ahead, in turn; then all three at once."""
    rows = []
    turns: list[dict[str, int]] = [{"0": 3_600}, {"1": -3_600}, {"2": 30}]
    turns.append({name: ahead_s for turn in turns for name, ahead_s in turn.items()})
    for turn in turns:
        label = ", ".join(f"node {name} {ahead_s:+d} s" for name, ahead_s in turn.items())
        clocks = {name: _clock(bench.directory, name, ahead_s) for name, ahead_s in turn.items()}
        rows.append(await _storm(bench, label, clocks))
    _show(bench, f"{_COUNT:,} devices, three nodes with wrong clocks, R = {_RATE}/s", rows)


async def section_redis(bench: Bench) -> None:
    """The clock of Redis is set back, and ahead, in the middle of a storm."""
    rows = []
    for by_s in (-300, -30, 3_600):
        clock = _clock(bench.directory, "redis", 0)
        label = f"Redis set by {by_s:+d} s"
        rows.append(await _storm(bench, label, {"redis": clock}, partial(clock.set, by_s)))
    _show(bench, f"{_COUNT:,} devices, the clock of Redis is set, R = {_RATE}/s", rows)


SECTIONS: Final[Mapping[str, Section]] = {
    "nodes": section_nodes,
    "redis": section_redis,
}


if __name__ == "__main__":
    main_of_sections("clocks", "A fleet whose clocks are wrong.", SECTIONS)
