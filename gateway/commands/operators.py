"""`tidegate drain` and `tidegate revoke`: orders to a gateway through its ops port."""

import json
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar

import typer

from gateway.commands import foreground, operate
from gateway.commands.terminal import fail

_OPS_URL: Final = "http://127.0.0.1:9090"
_T = TypeVar("_T")


app: Final = typer.Typer()


_REACH: Final = {
    "fleet": "this fleet",
    "pending": "this node, and on the others once Redis answers,",
    "node": "this node",
    "memory": "this node until it stops (its disk refused it),",
}

OpsUrl = Annotated[str, typer.Option(help="Ops page of the gateway.")]


@app.command()
def drain(
    ops_url: OpsUrl = _OPS_URL,
    now: Annotated[bool, typer.Option("--now", help="Give no slots: stop at once.")] = False,
) -> None:
    """Give every device of a gateway a slot elsewhere, then stop it; waits until it has stopped."""
    _operate(operate.drain(ops_url.rstrip("/"), now=now, say=typer.echo))


@app.command()
def revoke(
    device: Annotated[str | None, typer.Option(help="A device, whatever its credential.")] = None,
    jti: Annotated[str | None, typer.Option(help="One credential, by its `jti`.")] = None,
    tenant: Annotated[str, typer.Option(help="Tenant of the device.")] = "default",
    hours: Annotated[float, typer.Option(help="For how long.", min=0.001)] = 24.0,
    undo: Annotated[bool, typer.Option("--undo", help="Let it in again.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="Show what is revoked.")] = False,
    ops_url: OpsUrl = _OPS_URL,
) -> None:
    """Refuse a device or a credential from now on, on all nodes, and end its session.

    --undo admits it again; --list shows what is revoked, one JSON line each.
    """
    url = ops_url.rstrip("/")
    if list_:
        if undo or device is not None or jti is not None:
            fail("--list shows all that is revoked; it takes nothing but --ops-url")
        _show_revocations(url)
        return
    if (device is None) == (jti is None):
        fail("give --device or --jti")
    wanted = {"jti": jti} if jti is not None else {"tenant": tenant, "device": device}
    if undo:
        answer = _operate(operate.ask(f"{url}/unrevoke", wanted))
        if not answer["was_revoked"]:
            typer.echo("tidegate: it was not revoked on this node", err=True)
        typer.echo(f"may come in again on {_REACH[answer['unrevoked']]}")
        return
    until_s = time.time() + hours * 3600
    answer = _operate(operate.ask(f"{url}/revoke", wanted | {"until": until_s}))
    typer.echo(f"revoked on {_REACH[answer['revoked']]} for {hours:g} h")


def _show_revocations(url: str) -> None:
    """One JSON line each, ASCII only: a terminal gets no control character out of a name."""
    answer = _operate(operate.ask(f"{url}/revocations"))
    for entry in answer["revocations"]:
        until = datetime.fromtimestamp(entry.pop("until"), UTC)
        typer.echo(json.dumps(entry | {"until": until.isoformat(timespec="seconds")}))
    if answer["total"] > len(answer["revocations"]):
        typer.echo(f"tidegate: {answer['total']} in all; the first are shown", err=True)


def _operate(work: Coroutine[Any, Any, _T]) -> _T:
    """Talk to an ops port."""
    try:
        return foreground.run(work)
    except operate.OperateError as exc:
        fail(str(exc))
