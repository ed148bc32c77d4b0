"""What the commands that talk to an ops port share: options, and what they say."""

from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer

from gateway.commands import foreground, operate
from gateway.commands.terminal import fail

OPS_URL: Final = "http://127.0.0.1:9090"
_T = TypeVar("_T")

REACH: Final = {
    "fleet": "this fleet",
    "pending": "this node, and on the others once Redis answers,",
    "node": "this node",
    "memory": "this node until it stops (its disk refused it),",
}

OpsUrl = Annotated[str, typer.Option(help="Ops page of the gateway.")]
TokenFile = Annotated[
    Path | None,
    typer.Option(help=f"A file that holds your token; else ${operate.TOKEN_FILE_VARIABLE} names"
                 f" it, or ${operate.TOKEN_VARIABLE} has the token.", dir_okay=False),
]  # fmt: skip
CaFile = Annotated[
    Path | None,
    typer.Option(
        help="PEM file of the authorities to trust instead of the system's.", dir_okay=False
    ),
]


def client_of(ops_url: str, token_file: Path | None, ca_file: Path | None) -> operate.OpsClient:
    """What the options name.

    Raises:
        typer.Exit: a file cannot be used.
    """
    try:
        tls = operate.trust(ca_file) if ops_url.startswith("https:") else None
        return operate.OpsClient(ops_url.rstrip("/"), operate.token_of(token_file), tls)
    except operate.OperateError as exc:
        fail(str(exc))


def run_order(work: Coroutine[Any, Any, _T]) -> _T:
    """Talk to an ops port.

    Raises:
        typer.Exit: it cannot be asked, or refuses.
    """
    try:
        return foreground.run(work)
    except operate.OperateError as exc:
        fail(str(exc))
