"""What operators ask of simulated storms: how they end, and the rate that they need."""

import math
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from loadtest.simulator import StormPlan, StormResult, simulate


def show(results: Sequence[StormResult]) -> None:
    """Print the results of storms, a column each."""
    table = Table(
        title=f"{results[0].plan.devices:,} devices, R = {results[0].plan.rate_per_s:g}/s"
    )
    table.add_column("")
    for result in results:
        table.add_column(result.plan.policy, justify="right")
    rows: list[tuple[str, Callable[[StormResult], str]]] = [
        ("recovery, s", lambda r: f"{r.recovery_s:,.1f}" if r.over else _not_over(r)),
        ("recovery / (N/R)", lambda r: f"{r.recovery_over_ideal:.3f}" if r.over else ""),
        ("knocks a device", lambda r: f"{r.knocks_a_device:.2f}"),
        ("most knocks of one", lambda r: f"{r.most_knocks:,}"),
        ("peak knocks a second", lambda r: f"{r.peak_knocks_per_s:,}"),
        ("wait p50 / p99, s", lambda r: f"{r.wait_s(50):,.1f} / {r.wait_s(99):,.1f}"),
        ("tickets dishonoured", lambda r: f"{r.dishonoured:,}"),
        ("admitted", lambda r: f"{r.admitted:,}"),
        ("never came back", lambda r: f"{r.absent:,}"),
    ]
    for name, render in rows:
        table.add_row(name, *(render(result) for result in results))
    Console().print(table)


def _not_over(result: StormResult) -> str:
    return f"not over after {result.plan.time_limit_s:,.0f}"


def rate_for(plan: StormPlan, within_s: float) -> float:
    """The least R (to half a percent) at which such a storm is over within `within_s`.

    It is found with a small fleet at a small rate, since recovery depends on N/R alone.
    """
    scale = max(1, plan.devices // 20_000)

    def recovery_s(rate_per_s: float) -> float:
        small = StormPlan(
            devices=plan.devices // scale,
            rate_per_s=rate_per_s / scale,
            policy=plan.policy,
            burst=max(1.0, plan.burst / scale),
            refusals_per_s=plan.refusals_per_s / scale,
            rtt_s=plan.rtt_s,
            lateness_s=plan.lateness_s,
            clock_error=plan.clock_error,
            no_shows=plan.no_shows,
            nodes=plan.nodes,
            down_s=plan.down_s,
            seed=plan.seed,
            time_limit_s=within_s * 4,
        )
        result = simulate(small)
        return result.recovery_s if result.admitted + result.absent >= small.devices else math.inf

    low, high = 0.0, plan.devices / within_s
    while recovery_s(high) > within_s:
        low, high = high, high * 1.5
    while high - low > high * 0.005:
        middle = (low + high) / 2
        low, high = (low, middle) if recovery_s(middle) <= within_s else (middle, high)
    return high
