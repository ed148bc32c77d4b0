"""Benchmarks of the live page and the look-up: `make bench-page`.

    python -m loadtest.benches.pages [SECTION...] [--devices 5000] [--connected 15000]

What open pages cost a storm, how soon a fresh browser shows the first snapshot, how long the
look-up of a device takes among many.
"""

import argparse
import asyncio
import contextlib
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

import aiohttp
import uvloop

from loadtest.benches.rig import Bench, fixed_rate
from loadtest.benches.watchers import Watchers, history_of
from loadtest.devices.crowd import Crowd
from loadtest.devices.fleet import Meter
from loadtest.devices.limits import require_descriptors, take_all_descriptors
from loadtest.errors import LoadtestError, TargetError
from loadtest.servers import proc
from loadtest.servers.chromium import browser_page, find_chromium

PAGES: Final = 20
_RECOVERY_MAX: Final = 1.05
_CPU_SHARE_MAX: Final = 0.03
_LAG_RATIO_MAX: Final = 1.3
_READY_MS_MAX: Final = 500.0
_READY_BYTES_MAX: Final = 150 * 1024
_LOOK_UP_MS_MAX: Final = 50.0
_READY_RUNS: Final = 5
_LOOK_UPS: Final = 50
_CONNECT_PER_S: Final = 1_500.0
_STORM_MAX_S: Final = 10.0
"""A storm may last so many times N/R before it counts as not over."""

_NOTE_FIRST_SNAPSHOT: Final = """\
new MutationObserver((_changes, observer) => {
  if (!document.body || document.body.dataset.live !== 'yes') return;
  observer.disconnect();
  requestAnimationFrame(() => {
    const { port1, port2 } = new MessageChannel(); // a message comes right after the frame
    port1.onmessage = () => { window.readyAfterMs = performance.now(); };
    port2.postMessage(0);
  });
}).observe(document, { attributes: true, childList: true, subtree: true });
"""
"""Notes when the first snapshot is on the screen, in milliseconds since the navigation."""
_CHARTS: Final = "document.querySelector('#charts canvas')"


@dataclass(frozen=True, slots=True)
class Plan:
    """How large the run is."""

    devices: int
    """Of a storm."""
    rate_per_s: float
    turns: int
    connected: int
    """Devices among which one is looked up."""
    browser: bool
    """Whether one of the open pages is a real Chromium."""


@dataclass(frozen=True, slots=True)
class _Storm:
    """What one storm was like."""

    recovery: float
    cpu_share: float
    """Of a core, of the gateway's process."""
    lags_ms: list[float]
    """The worst of each second."""


async def section_storm(bench: Bench, plan: Plan) -> None:
    """Storms with pages open and without, in turns, each on a gateway of its own."""
    require_descriptors(plan.devices + 1_000)
    seen: dict[bool, list[_Storm]] = {False: [], True: []}
    for turn in range(plan.turns):
        for watched in (False, True) if turn % 2 == 0 else (True, False):
            seen[watched].append(await _storm(bench, plan, watched=watched))
    recovery = {w: statistics.median(s.recovery for s in seen[w]) for w in seen}
    cpu = {w: statistics.median(s.cpu_share for s in seen[w]) for w in seen}
    lag_ms = {w: _p99([lag for s in seen[w] for lag in s.lags_ms]) for w in seen}
    bench.report.table(
        f"{plan.devices:,} devices, R = {plan.rate_per_s:g}/s, medians of {plan.turns} turns",
        ("", "recovery / (N/R)", "CPU of the gateway, cores", "loop lag p99, ms"),
        [
            (name, f"{recovery[w]:.3f}", f"{cpu[w]:.3f}", f"{lag_ms[w]:.1f}")
            for name, w in (("no page open", False), (f"{PAGES} pages open", True))
        ],
    )
    report = bench.report
    report.at_most(f"recovery over N/R with {PAGES} pages", recovery[True], _RECOVERY_MAX)
    share = 100 * (cpu[True] - cpu[False])
    report.at_most("CPU of the pages", share, 100 * _CPU_SHARE_MAX, unit=" % of a core")
    report.at_most("loop lag p99, with / without", lag_ms[True] / lag_ms[False], _LAG_RATIO_MAX)


async def _storm(bench: Bench, plan: Plan, *, watched: bool) -> _Storm:
    ideal_s = plan.devices / plan.rate_per_s
    settings = fixed_rate(plan.rate_per_s, max(10.0, plan.rate_per_s / 10))
    with bench.gateway(**settings) as gateway:
        crowd = Crowd(
            bench.issuer, plan.devices, [gateway.port], "ticket", first_retry_ms=plan.devices
        )
        async with _watching(gateway.ops_port, PAGES if watched else 0, browser=plan.browser):
            began_at, began = time.time(), perf_counter()
            cpu_s = proc.cpu_s(gateway.pids[0])
            if not await crowd.run(_STORM_MAX_S * ideal_s):
                raise TargetError("the storm did not end")
            cpu_s = proc.cpu_s(gateway.pids[0]) - cpu_s
            took_s = perf_counter() - began
            history = await history_of(gateway.ops_port)
        await crowd.stop()
    lags_ms = [each["loop_lag_ms"] for each in history if each["at"] > began_at]
    if not any(lags_ms):
        raise TargetError("the storm was over before the page had shown a second of it")
    storm = _Storm(crowd.recovery_over(ideal_s), cpu_s / took_s, lags_ms)
    bench.report.console.print(
        f"  {PAGES if watched else 'no'} pages: recovery {storm.recovery:.3f},"
        f" CPU {storm.cpu_share:.3f}, loop lag at most {max(lags_ms):.0f} ms"
    )
    return storm


@contextlib.asynccontextmanager
async def _watching(ops_port: int, pages: int, *, browser: bool) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        if pages and browser:
            page = await stack.enter_async_context(browser_page(_chromium()))
            await page.go(f"http://127.0.0.1:{ops_port}/")
            await page.until("document.body && document.body.dataset.live === 'yes'")
            pages -= 1
        watchers = await stack.enter_async_context(Watchers(ops_port, pages))
        yield
        if pages and not min(watchers.snapshots):
            raise TargetError("a page got no snapshot")


async def section_ready(bench: Bench, _plan: Plan) -> None:
    """From the navigation to the first snapshot on the screen, in a fresh browser each time."""
    times_ms, sizes = [], []
    with bench.gateway() as gateway:
        await asyncio.sleep(2)  # the first snapshots
        for _ in range(_READY_RUNS):
            async with browser_page(_chromium()) as page:
                await page.size(1400, 900)
                await page.before_each_document(_NOTE_FIRST_SNAPSHOT)
                await page.go(f"http://127.0.0.1:{gateway.ops_port}/")
                await page.until("window.readyAfterMs")
                times_ms.append(float(await page.run("window.readyAfterMs")))
                await page.until(_CHARTS)  # their library comes after the first snapshot
                sizes.append(page.received_bytes)
        history = len(await history_of(gateway.ops_port))
    bench.report.table(
        f"the live page in a fresh Chromium, {_READY_RUNS} times",
        ("", "median", "most"),
        [
            ("ready after, ms", f"{statistics.median(times_ms):.0f}", f"{max(times_ms):.0f}"),
            ("bodies, KiB", *(f"{f(sizes) / 1024:.1f}" for f in (statistics.median, max))),
        ],
    )
    bench.report.console.print(f"  {history} snapshots in the history; at most 300\n")
    bench.report.at_most("page ready", statistics.median(times_ms), _READY_MS_MAX, unit=" ms")
    bench.report.at_most("page, KiB", max(sizes) / 1024, _READY_BYTES_MAX / 1024)


async def section_look_up(bench: Bench, plan: Plan) -> None:
    """One device among many connected ones, over HTTP, each time on a connection of its own."""
    require_descriptors(plan.connected + 1_000)
    rng = random.Random(1)
    fleet = bench.gateway_devices(plan.connected, Meter(0))
    times_ms: list[float] = []
    with bench.gateway(server__connections_max=plan.connected) as gateway:
        async with fleet.connected(gateway.port, rate_per_s=_CONNECT_PER_S):
            for number in rng.choices(range(plan.connected), k=_LOOK_UPS):
                url = f"http://127.0.0.1:{gateway.ops_port}/devices/default/veh-{number}"
                began = perf_counter()
                async with aiohttp.ClientSession() as http, http.get(url) as response:
                    found = await response.json()
                times_ms.append((perf_counter() - began) * 1000)
                if found["session"] is None:
                    raise TargetError(f"veh-{number} is not found")
    median, most = statistics.median(times_ms), max(times_ms)
    bench.report.table(
        f"look-up of one of {plan.connected:,} connected devices, {_LOOK_UPS} times",
        ("", "median ms", "longest ms"),
        [("over HTTP", f"{median:.1f}", f"{most:.1f}")],
    )
    bench.report.at_most("longest look-up", most, _LOOK_UP_MS_MAX, unit=" ms")


SECTIONS: Final[dict[str, Callable[[Bench, Plan], Awaitable[None]]]] = {
    "storm": section_storm,
    "ready": section_ready,
    "look-up": section_look_up,
}


def _chromium() -> str:
    found = find_chromium()
    if found is None:
        raise TargetError("there is no chromium: make debian")
    return found


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[98] if len(values) > 1 else 0.0


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Benchmarks of the live page and the look-up.")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--devices", type=int, default=5_000, help="of a storm (5000)")
    parser.add_argument("--rate", type=float, default=250.0, help="R of a storm (250)")
    parser.add_argument("--turns", type=int, default=3, help="storms of each side (3)")
    parser.add_argument("--connected", type=int, default=15_000, help="for the look-up (15000)")
    parser.add_argument("--browser", action="store_true", help="one page is a real Chromium")
    options = parser.parse_args(arguments)
    for name in options.sections:
        if name not in SECTIONS:
            parser.error(f"unknown section {name}; there are {', '.join(SECTIONS)}")
    plan = Plan(options.devices, options.rate, options.turns, options.connected, options.browser)
    take_all_descriptors()

    async def run() -> int:
        with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as directory:
            bench = Bench.below(Path(directory))
            for name in options.sections or SECTIONS:
                await SECTIONS[name](bench, plan)
        return bench.report.status()

    try:
        status = uvloop.run(run())
    except LoadtestError as exc:
        sys.exit(f"pages: {exc}")
    sys.exit(status)


if __name__ == "__main__":
    main()
