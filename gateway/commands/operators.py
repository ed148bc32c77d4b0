"""`tidegate drain`, `revoke` and `disconnect`: orders to a gateway through its ops port."""

import json
import time
from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from gateway.commands import operate
from gateway.commands.ops_options import (
    OPS_URL,
    REACH,
    CaFile,
    OpsUrl,
    TokenFile,
    client_of,
    run_order,
)
from gateway.commands.terminal import fail

app: Final = typer.Typer(add_completion=False)


@app.command()
def drain(
    ops_url: OpsUrl = OPS_URL,
    now: Annotated[bool, typer.Option("--now", help="Give no slots: stop at once.")] = False,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
) -> None:
    """Give the devices of a gateway slots elsewhere, then stop the gateway. Waits for its end."""
    run_order(operate.drain(client_of(ops_url, token_file, ca_file), now=now, say=typer.echo))


@app.command()
def disconnect(
    device: Annotated[str, typer.Argument(help="Id of the device.")],
    tenant: Annotated[str, typer.Option(help="Tenant of the device.")] = "default",
    ops_url: OpsUrl = OPS_URL,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
) -> None:
    """End the session of a device. What it sent is acknowledged first; it may connect again."""
    wanted = {"tenant": tenant, "device": device}
    client = client_of(ops_url, token_file, ca_file)
    if not run_order(client.ask("/disconnect", wanted))["disconnected"]:
        fail(f"{tenant}/{device} is not connected")
    typer.echo("disconnected")


@app.command()
def revoke(
    device: Annotated[str | None, typer.Option(help="A device, whatever its credential.")] = None,
    jti: Annotated[str | None, typer.Option(help="One credential, by its `jti`.")] = None,
    tenant: Annotated[str, typer.Option(help="Tenant of the device.")] = "default",
    hours: Annotated[float, typer.Option(help="For how long.", min=0.001)] = 24.0,
    undo: Annotated[bool, typer.Option("--undo", help="Admit it again.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="Show what is revoked.")] = False,
    ops_url: OpsUrl = OPS_URL,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
) -> None:
    """Refuse a device or a credential from now on, on all nodes, and end its session.

    --undo admits it again; --list shows what is revoked, one JSON line each.
    """
    client = client_of(ops_url, token_file, ca_file)
    if list_:
        if undo or device is not None or jti is not None:
            fail("--list shows all that is revoked; it takes nothing but --ops-url")
        _show_revocations(client)
        return
    if (device is None) == (jti is None):
        fail("give --device or --jti")
    wanted = {"jti": jti} if jti is not None else {"tenant": tenant, "device": device}
    if undo:
        answer = run_order(client.ask("/unrevoke", wanted))
        if not answer["was_revoked"]:
            typer.echo("tidegate: it was not revoked on this node", err=True)
        typer.echo(f"may come in again on {REACH[answer['unrevoked']]}")
        return
    until_s = time.time() + hours * 3600
    answer = run_order(client.ask("/revoke", wanted | {"until": until_s}))
    typer.echo(f"revoked on {REACH[answer['revoked']]} for {hours:g} h")


def _show_revocations(client: operate.OpsClient) -> None:
    """One JSON line each, ASCII only: a terminal gets no control character out of a name."""
    answer = run_order(client.ask("/revocations"))
    for entry in answer["revocations"]:
        until = datetime.fromtimestamp(entry.pop("until"), UTC)
        typer.echo(json.dumps(entry | {"until": until.isoformat(timespec="seconds")}))
    if answer["total"] > len(answer["revocations"]):
        typer.echo(f"tidegate: {answer['total']} in all; the first are shown", err=True)
