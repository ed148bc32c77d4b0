"""The tree of commands: which there are. Each is loaded when it is asked for."""

import contextlib
import gc
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

COMMANDS: Final = {
    "serve": "gateway.commands.serving",
    "token": "gateway.commands.devices",
    "device": "gateway.commands.devices",
    "command": "gateway.commands.command",
    "tail": "gateway.commands.reading",
    "simulate": "gateway.commands.load",
    "storm": "gateway.commands.load",
    "drain": "gateway.commands.operators",
    "restart-workers": "gateway.commands.restarting",
    "revoke": "gateway.commands.operators",
    "disconnect": "gateway.commands.operators",
    "rate": "gateway.commands.steering",
    "whois": "gateway.commands.whois",
    "presence": "gateway.commands.presence",
    "device-log": "gateway.commands.device_log",
    "state": "gateway.commands.state",
    "provision": "gateway.commands.streams",
    "backup": "gateway.commands.backups",
    "restore": "gateway.commands.backups",
    "check-config": "gateway.commands.config",
    "sink": "gateway.commands.sinks",
    "schema": "gateway.commands.schemas",
    "audit": "gateway.commands.audit",
    "deadletters": "gateway.commands.deadletters",
    "route": "gateway.commands.route",
    "rules": "gateway.commands.rules",
}
"""Each command, and the module whose `app` has it."""

NATS_ONLY: Final = frozenset(
    {
        "audit",
        "backup",
        "command",
        "deadletters",
        "presence",
        "provision",
        "restore",
        "state",
        "tail",
    }
)
"""Commands that speak NATS and no HTTP."""
_TERMINAL: Final = ("rich",)
"""What structlog loads for tracebacks in colour: a tenth of a second, and our logs have none. Typer
loads it later, for a page of help."""
_HTTP: Final = ("aiohttp",)
"""What nats-py loads for a transport that no address of ours can name; a fifth of a second."""


@contextlib.contextmanager
def _loading(without: Iterable[str]) -> Iterator[None]:
    """For as long as the context lasts, these cannot be imported, unless they are already.

    What a module defines stays: the cyclic collector would look through it again and again.
    """
    absent = [module for module in without if module not in sys.modules]
    for module in absent:
        sys.modules[module] = None  # type: ignore[assignment]  # as the import system has it
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
        for module in absent:
            del sys.modules[module]


class _Commands(TyperGroup):
    """Commands that are imported one by one: half a second of imports less for most of them."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # click's own
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]  # as above
        del ctx
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        with _loading(without=_TERMINAL + (_HTTP if cmd_name in NATS_ONLY else ())):
            loaded = import_module(module)
        made = typer.main.get_command(loaded.app)
        # Typer makes no group of a single command, and gives a group of its own no name.
        found = getattr(made, "commands", {}).get(cmd_name, made)
        found.name = cmd_name
        return found


app: Final = typer.Typer(
    cls=_Commands,
    name="tidegate",
    help="WebSocket gateway for device fleets, in front of NATS JetStream.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        # The reading of metadata takes as long to import as Typer, and only this option needs it.
        metadata = import_module("importlib.metadata")
        typer.echo(f"tidegate {metadata.version('tidegate-gateway')}")
        raise typer.Exit


@app.callback()
def _tidegate(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and end."
        ),
    ] = False,
) -> None:
    """WebSocket gateway for device fleets, in front of NATS JetStream."""
    del version
