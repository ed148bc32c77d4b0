"""`tidegate check-config`."""

from typing import Annotated, Final

import typer

from gateway.commands import checks, foreground
from gateway.commands.terminal import Config, configure_command_logs, fail, settings_of
from gateway.telemetry.hiding import hide

app: Final = typer.Typer(add_completion=False)


@app.command("check-config")
def check_config(
    config: Config = None,
    connect: Annotated[
        bool, typer.Option("--connect", help="Try NATS, Redis and the JWKS URL as well.")
    ] = False,
) -> None:
    """Check the settings of a file and the environment, and show what is in force.

    Every file that is named is opened: keys, certificates, credentials.
    """
    settings = settings_of(config, {})
    typer.echo(hide(settings.model_dump_json(indent=2)))
    problems = checks.problems(settings)
    if connect:
        configure_command_logs(settings, "critical")  # the problems are shown below
        problems += foreground.run(checks.connection_problems(settings))
    if problems:
        fail("\n".join(problems))
