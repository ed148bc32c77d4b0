"""`tidegate backup` and `tidegate restore`."""

from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Final

import nats.errors
import typer

from gateway import backups
from gateway.commands import foreground
from gateway.commands.terminal import Config, DataDir, NatsUrl, fail, nats_settings_of
from gateway.errors import GatewayError
from gateway.stream.errors import StreamError

app: Final = typer.Typer(add_completion=False)

Directory = Annotated[Path, typer.Argument(help="Directory of the backup.", file_okay=False)]


@app.command()
def backup(
    directory: Directory,
    config: Config = None,
    nats_url: NatsUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Save every stream to DIRECTORY, which must be new or empty. The gateway may run meanwhile.

    Starts the embedded NATS if no gateway runs.
    """
    settings = nats_settings_of(config, nats_url, data_dir)
    _run(backups.back_up(settings, directory, typer.echo))


@app.command()
def restore(
    directory: Directory,
    config: Config = None,
    nats_url: NatsUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Create the streams of a backup again, on a server that has none of them.

    With the embedded NATS: into a new data directory, before the gateway starts there.
    """
    settings = nats_settings_of(config, nats_url, data_dir)
    _run(backups.restore(settings, directory, typer.echo))


def _run(work: Coroutine[Any, Any, None]) -> None:
    try:
        foreground.run(work)
    except (GatewayError, StreamError, nats.errors.Error, OSError) as exc:
        fail(str(exc) or type(exc).__name__)
