"""`tidegate serve`."""

import contextlib
import shlex
import sys
from pathlib import Path
from typing import Annotated, Final

import typer
import uvloop

from gateway.app import Gateway
from gateway.commands.terminal import (
    Config,
    DataDir,
    NatsUrl,
    fail,
    nats_overrides,
    settings_of,
)
from gateway.expected_errors import EXPECTED
from gateway.settings import load_settings, secrets_of
from gateway.supervisor.supervisor import Supervisor
from gateway.telemetry.logs import configure_logs

app: Final = typer.Typer(add_completion=False)

Served = Gateway | Supervisor


@app.command()
def serve(
    config: Config = None,
    port: Annotated[int | None, typer.Option(help="Port for devices; 0 picks a free one.")] = None,
    ops_port: Annotated[
        int | None, typer.Option(help="Port for operators; 0 picks a free one.")
    ] = None,
    nats_url: NatsUrl = None,
    data_dir: DataDir = None,
    workers: Annotated[
        str | None,
        typer.Option(help="Processes on the port for devices; `auto` is one for each core."),
    ] = None,
    hint: Annotated[bool, typer.Option(help="Print how to connect a device.")] = False,
) -> None:
    """Run the gateway, with an embedded NATS server unless --nats-url is given."""
    overrides = nats_overrides(
        nats_url, data_dir, server__port=port, ops__port=ops_port, server__workers=workers
    )
    settings = settings_of(config, overrides)
    configure_logs(settings.log.level, settings.log.format, secrets=secrets_of(settings))

    async def run() -> None:
        gateway: Served
        if settings.worker_count > 1:
            gateway = Supervisor(settings, config=config, overrides=overrides)
        else:
            gateway = Gateway(
                settings, read_settings=lambda: load_settings(config, overrides=overrides)
            )
        await gateway.run(on_ready=_print_hint if hint else None)

    try:
        uvloop.run(run())
    except EXPECTED as exc:
        fail(str(exc))


def _print_hint(gateway: Served) -> None:
    """How to connect a device, ready to paste."""
    program = f"{Path(sys.argv[0]).parent}/tidegate" if "/" in sys.argv[0] else "tidegate"
    with contextlib.suppress(ValueError):
        program = str(Path(program).resolve().relative_to(Path.cwd()))
    directory = gateway.data_dir
    option = f" --data-dir {shlex.quote(str(directory))}"
    data_dir = "" if directory == Path(".tidegate") else option
    message = '{"type":"battery.low","data":{"soc":7}}'
    typer.echo(
        f"\nTidegate serves devices on port {gateway.port}; "
        f"metrics: http://127.0.0.1:{gateway.ops_port}/metrics\n"
        f"Connect a device (paste into another terminal):\n\n"
        f"  echo '{message}' | {shlex.quote(program)} device veh-1 "
        f"--url ws://127.0.0.1:{gateway.port}/v1/device{data_dir}\n\n"
        f"Read back what is stored:\n\n"
        f"  {shlex.quote(program)} tail --since all --no-follow{data_dir}\n"
    )
