"""`tidegate restart-workers`: a rolling restart of a gateway's workers, through its ops port."""

from typing import Final

import typer

from gateway.commands import operate
from gateway.commands.ops_options import (
    OPS_URL,
    CaFile,
    OpsUrl,
    TokenFile,
    client_of,
    run_order,
)
from gateway.commands.terminal import fail

app: Final = typer.Typer(add_completion=False)


@app.command(name="restart-workers")
def restart_workers(
    ops_url: OpsUrl = OPS_URL, token_file: TokenFile = None, ca_file: CaFile = None
) -> None:
    """Replace the workers of a gateway one by one, with the port open. Waits for the end."""
    client = client_of(ops_url, token_file, ca_file)
    if not run_order(operate.restart_workers(client, say=typer.echo)):
        fail("a worker does not serve: the other workers were left as they are; see the log")
