"""`tidegate simulate` and `tidegate storm`, which run `loadtest`."""

import importlib.util
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final

import typer

from gateway.commands.terminal import fail, say

if TYPE_CHECKING:
    from loadtest.simulator import StormPlan

app: Final = typer.Typer(add_completion=False)

_ClockError = Annotated[
    float, typer.Option(help="Share by which the clocks of devices are off.", min=0, max=0.5)
]
_NoShows = Annotated[
    float, typer.Option(help="Share of devices that never come back.", min=0, max=1)
]


@app.command()
def simulate(
    devices: Annotated[int, typer.Option(help="Devices that lose their connection.", min=1)],
    rate: Annotated[float, typer.Option(help="R, admissions a second.", min=0.001)] = 500.0,
    policy: Annotated[
        list[str] | None, typer.Option(help="How devices come back; may be repeated.")
    ] = None,
    within: Annotated[
        float | None, typer.Option(help="Find the R that has all back in so many seconds.")
    ] = None,
    burst: Annotated[float, typer.Option(help="Admissions at once.", min=1)] = 100.0,
    refusals: Annotated[float, typer.Option(help="Knocks refused a second.", min=1)] = 1_000.0,
    rtt_ms: Annotated[float, typer.Option(help="Round trip time.", min=0)] = 100.0,
    lateness_ms: Annotated[float, typer.Option(help="Largest delay of a knock.", min=0)] = 50.0,
    clock_error: _ClockError = 0.0,
    no_shows: _NoShows = 0.0,
    nodes: Annotated[int, typer.Option(help="Nodes that share R.", min=1)] = 1,
    fail_node_at: Annotated[
        float | None, typer.Option(help="A node dies so many seconds after the drop.")
    ] = None,
    down: Annotated[
        float, typer.Option(help="All nodes restart: nobody answers for so many seconds.", min=0)
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the random numbers.")] = 1,
) -> None:
    """Simulate an outage: how long it takes, the knocks, the peak, and the rate that it needs."""
    from loadtest import simulator  # noqa: PLC0415  # nothing that serves needs it
    from loadtest.devices.policies import POLICIES  # noqa: PLC0415  # as above

    chosen = policy or ["ticket"]
    for name in chosen:
        if name not in POLICIES:
            fail(f"--policy {name}: there are {', '.join(POLICIES)}")
    if fail_node_at is not None and nodes == 1:
        fail("--fail-node-at needs --nodes of 2 or more: one node must be left")
    plan = simulator.StormPlan(
        devices=devices,
        rate_per_s=rate,
        burst=burst,
        refusals_per_s=refusals,
        rtt_s=rtt_ms / 1000,
        lateness_s=lateness_ms / 1000,
        clock_error=clock_error,
        no_shows=no_shows,
        nodes=nodes,
        fail_node_at_s=fail_node_at,
        down_s=down,
        seed=seed,
    )
    say(f"simulating {devices:,} devices, {', '.join(chosen)}; a million take about half a minute")
    _show([replace(plan, policy=name) for name in chosen], within)


def _show(plans: list["StormPlan"], within_s: float | None) -> None:
    """What becomes of these storms or, with `within_s`, the rate at which each is over by then."""
    from loadtest import forecast, simulator  # noqa: PLC0415  # nothing that serves needs it

    if within_s is None:
        forecast.show([simulator.simulate(plan) for plan in plans])
        return
    for plan in plans:
        needed = forecast.rate_for(plan, within_s)
        typer.echo(f"{plan.policy}: R = {needed:,.0f}/s brings all in within {within_s:g} s")


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def storm(context: typer.Context) -> None:
    """Run a reconnection storm on real sockets, with a verdict; `--help` lists the scenarios."""
    if importlib.util.find_spec("locust") is None:
        fail("locust is missing: pip install 'tidegate-gateway[loadtest]'")
    # The command replaces this process, because gevent changes how a process waits, and so that
    # signals reach it. Without `-P`, a `cmd.py` in the user's directory would hide Python's own.
    command = [sys.executable, "-P", "-m", "loadtest.lab", *context.args]
    os.execv(sys.executable, command)  # noqa: S606  # our own module
