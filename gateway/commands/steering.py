"""`tidegate rate`: change R and what belongs to it for a time, on all nodes."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from gateway.commands.operate import OpsClient
from gateway.commands.ops_options import (
    OPS_URL,
    REACH,
    CaFile,
    OpsUrl,
    TokenFile,
    client_of,
    run_order,
)
from gateway.commands.terminal import fail, seconds_of

app: Final = typer.Typer(add_completion=False)


@app.command()
def rate(
    per_s: Annotated[float | None, typer.Argument(help="R: admissions a second.", min=0)] = None,
    for_: Annotated[str, typer.Option("--for", help="How long: 90s, 10m, 2h, 1d.")] = "10m",
    floor: Annotated[float | None, typer.Option(help="R never falls below this.")] = None,
    burst: Annotated[float | None, typer.Option(help="Admissions at once.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    back: Annotated[bool, typer.Option("--back", help="End all changes now.")] = False,
    ops_url: OpsUrl = OPS_URL,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
) -> None:
    """Change R, its floor, the burst or the log level for a time, on all nodes of the fleet.

    After that time, the settings hold again. Without a value, it shows what holds now.
    """
    client = client_of(ops_url, token_file, ca_file)
    wanted: dict[str, Any] = {
        "rate_per_s": per_s,
        "rate_floor_per_s": floor,
        "burst": burst,
        "log_level": log_level,
    }
    wanted = {name: value for name, value in wanted.items() if value is not None}
    if back and wanted:
        fail("--back takes no value")
    if back:
        answer = run_order(client.ask("/unsteer", {}))
        typer.echo(f"the settings hold again on {REACH[answer['unsteered']]}")
    elif wanted:
        for_s = seconds_of(for_, "--for")
        answer = run_order(client.ask("/steer", {**wanted, "for_s": for_s}))
        typer.echo(f"changed on {REACH[answer['steered']]} for {for_}")
    else:
        _show(client)


def _show(client: OpsClient) -> None:
    admission = run_order(client.ask("/status"))["admission"]
    for name in ("rate_per_s", "rate_ceiling_per_s", "rate_floor_per_s", "burst", "limited_by"):
        typer.echo(f"{name}: {admission[name]}")
    for name, fact in admission["steered"].items():
        until = datetime.fromtimestamp(fact["until"], UTC).isoformat(timespec="seconds")
        typer.echo(f"{name} is {fact['value']} until {until}, by {fact['by']}")
