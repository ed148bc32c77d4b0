"""`tidegate provision`."""

from typing import Annotated, Final

import nats.errors
import typer

from gateway.commands import foreground
from gateway.commands.terminal import Config, DataDir, NatsUrl, fail, nats_settings_of
from gateway.errors import GatewayError
from gateway.stream.errors import StreamError
from gateway.streams import provision_streams

app: Final = typer.Typer(add_completion=False)


@app.command()
def provision(
    plan: Annotated[bool, typer.Option("--plan", help="Show the changes; the default.")] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Make the changes.")] = False,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Make changes that delete messages, too.")
    ] = False,
    config: Config = None,
    nats_url: NatsUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Show how the streams differ from the settings, or change them to match.

    Starts the embedded NATS if no gateway runs. The exit status is 1 if differences are left.
    """
    if plan and apply:
        fail("give --plan or --apply")
    settings = nats_settings_of(config, nats_url, data_dir)
    work = provision_streams(settings, make=apply, accept_loss=accept_loss, say=typer.echo)
    try:
        done = foreground.run(work)
    except (GatewayError, StreamError, nats.errors.Error, OSError) as exc:
        fail(str(exc) or type(exc).__name__)
    else:
        raise typer.Exit(0 if done else 1)
