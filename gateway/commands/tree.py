"""The tree of commands: which there are. A command is loaded when it runs, and not to be listed."""

from importlib import import_module
from typing import Annotated, Any, Final, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from gateway.quick_imports import TERMINAL, without


class Listed(NamedTuple):
    """A command as the page of help lists it."""

    module: str
    """Its `app` has the command."""
    summary: str
    """The first paragraph of its help, so that the page of help loads no module. A test holds
    both equal."""


COMMANDS: Final = {
    "serve": Listed(
        "gateway.commands.serving",
        "Run the gateway, with an embedded NATS server unless --nats-url is given.",
    ),
    "token": Listed(
        "gateway.commands.devices",
        "Mint a development credential for DEVICE.",
    ),
    "device": Listed(
        "gateway.commands.devices",
        "Run a device: it sends each JSON line of stdin, and prints acks, commands and states.",
    ),
    "command": Listed(
        "gateway.commands.command",
        "Send a command to a device, and print each answer as a JSON line.",
    ),
    "tail": Listed(
        "gateway.commands.reading",
        "Follow the stored messages, or replay them; each is printed as a JSON line.",
    ),
    "simulate": Listed(
        "gateway.commands.load",
        "Simulate an outage: how long it takes, the knocks, the peak, and the rate that it needs.",
    ),
    "storm": Listed(
        "gateway.commands.load",
        "Run a reconnection storm on real sockets, with a verdict; `--help` lists the scenarios.",
    ),
    "drain": Listed(
        "gateway.commands.operators",
        "Give the devices of a gateway slots elsewhere, then stop the gateway. Waits for its end.",
    ),
    "restart-workers": Listed(
        "gateway.commands.restarting",
        "Replace the workers of a gateway one by one, with the port open. Waits for the end.",
    ),
    "revoke": Listed(
        "gateway.commands.operators",
        "Refuse a device or a credential from now on, on all nodes, and end its session.",
    ),
    "disconnect": Listed(
        "gateway.commands.operators",
        "End the session of a device. What it sent is acknowledged first; it may connect again.",
    ),
    "rate": Listed(
        "gateway.commands.steering",
        "Change R, its floor, the burst or the log level for a time, on all nodes of the fleet.",
    ),
    "whois": Listed(
        "gateway.commands.whois",
        "Show where a device is connected, and its last refusals and closes, on all nodes.",
    ),
    "presence": Listed(
        "gateway.commands.presence",
        "Show which devices are online now, from the facts that are stored.",
    ),
    "device-log": Listed(
        "gateway.commands.device_log",
        "Show what happened to a device, in order: sessions, commands, rejects, refusals.",
    ),
    "state": Listed(
        "gateway.commands.state",
        "Set and show the desired state of a device. A connected device is told at once.",
    ),
    "provision": Listed(
        "gateway.commands.streams",
        "Show how the streams differ from the settings, or change them to match.",
    ),
    "backup": Listed(
        "gateway.commands.backups",
        "Save every stream to DIRECTORY, which must be new or empty. The gateway may run "
        "meanwhile.",
    ),
    "restore": Listed(
        "gateway.commands.backups",
        "Create the streams of a backup again, on a server that has none of them.",
    ),
    "check-config": Listed(
        "gateway.commands.config",
        "Check the settings of a file and the environment, and show what is in force.",
    ),
    "sink": Listed(
        "gateway.commands.sinks",
        "Write events into tables or files, each exactly once, as the events file says.",
    ),
    "schema": Listed(
        "gateway.commands.schemas",
        "Compare, propose and export the schemas of events.",
    ),
    "audit": Listed(
        "gateway.commands.audit",
        "Prove that each seq of an outbox is stored once and in order, as an event or a "
        "dead letter.",
    ),
    "deadletters": Listed(
        "gateway.commands.deadletters",
        "List, show and export dead letters of all stages, and send them again.",
    ),
    "route": Listed(
        "gateway.commands.route",
        "Send events that match a rule to its target, as the events file says.",
    ),
    "rules": Listed(
        "gateway.commands.rules",
        "Check the rules of the events file, and try them on events.",
    ),
}

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
_HTTP: Final = ("aiohttp",)
"""What nats-py loads for a transport that no address of ours can name; a fifth of a second."""


def load(name: str) -> TyperCommand | TyperGroup:
    """The command of `COMMANDS` with this name; imports its module."""
    with without(TERMINAL + (_HTTP if name in NATS_ONLY else ())):
        loaded = import_module(COMMANDS[name].module)
    made = typer.main.get_command(loaded.app)
    # Typer makes no group of a single command, and gives a group of its own no name.
    found: TyperCommand | TyperGroup = getattr(made, "commands", {}).get(name, made)
    found.name = name
    return found


class _Commands(TyperGroup):
    """Commands that are known by their summaries. One is loaded when it is about to run."""

    def __init__(self, **attributes: Any) -> None:
        listed = {name: TyperCommand(name, help=each.summary) for name, each in COMMANDS.items()}
        super().__init__(**attributes | {"commands": listed})

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        name, listed, rest = super().resolve_command(ctx, args)
        return name, None if listed is None else load(str(name)), rest


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
