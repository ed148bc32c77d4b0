"""`tidegate token` and `tidegate device`: a device at the terminal."""

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from gateway import development
from gateway.commands.terminal import DataDir, fail, settings_of
from tidegate import __main__ as client
from tidegate.__main__ import CREDENTIAL_VARIABLE
from tidegate.wire.grammar import is_token

_DEVICE_URL: Final = "ws://127.0.0.1:8080/v1/device"


app: Final = typer.Typer(add_completion=False)


@app.command()
def token(
    device: Annotated[str, typer.Argument(help="Device id, the `sub` of the credential.")],
    data_dir: DataDir = None,
    tenant: Annotated[str, typer.Option(help="Tenant.")] = "default",
    group: Annotated[str, typer.Option(help="Site or depot.")] = "default",
    urgent: Annotated[bool, typer.Option(help="Admitted first in a storm.")] = False,
    hours: Annotated[float, typer.Option(help="Hours until it expires.", min=0.001)] = 24.0,
) -> None:
    """Mint a development credential for DEVICE."""
    for name, value in (("DEVICE", device), ("--tenant", tenant), ("--group", group)):
        if not is_token(value):
            fail(f"{name} must match [A-Za-z0-9_-]{{1,64}}")
    claims = {"tenant": tenant, "group": group, "class": "urgent" if urgent else "normal"}
    directory = settings_of(None, {"nats.data_dir": data_dir}).nats.data_dir
    lifetime_s = max(1, int(hours * 3600))
    typer.echo(development.mint(directory, device, lifetime_s=lifetime_s, claims=claims))


@app.command()
def device(
    device: Annotated[str, typer.Argument(help="Device id.")],
    url: Annotated[
        list[str] | None,
        typer.Option(
            help="Address of a gateway; may be repeated: the device uses one that answers."
        ),
    ] = None,
    credential: Annotated[
        str | None,
        typer.Option("--credential", help="JWT; without it, a development credential is minted."),
    ] = None,
    outbox: Annotated[
        Path | None,
        typer.Option(help="Outbox file; without it, DEVICE.outbox in the data directory."),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(help="PEM file of the authorities to trust for wss:// gateways."),
    ] = None,
    answer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TYPE[=JSON]",
            help="Answer commands of this type with JSON, or with their own data; may be repeated.",
        ),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Run a device: it sends each JSON line of stdin, and prints acks, commands and states.

    A line is {"type":"battery.low","data":{...}}, or {"result":{"id":"..","ok":true,"data":..}} to
    answer a command. Ends when stdin has ended and everything is acknowledged, or on SIGINT or
    SIGTERM (with --answer on those only): what is not acknowledged stays in the outbox.
    """
    if not is_token(device):
        fail("DEVICE must match [A-Za-z0-9_-]{1,64}")
    directory = settings_of(None, {"nats.data_dir": data_dir}).nats.data_dir
    if credential is None:
        credential = development.mint(directory, device, lifetime_s=86_400, claims={})
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = outbox if outbox is not None else directory / f"{device}.outbox"
    arguments = [device, "--outbox", str(path)]
    for each in url or [_DEVICE_URL]:
        arguments += ["--url", each]
    for each in answer or []:
        arguments += ["--answer", each]
    if ca is not None:
        arguments += ["--ca", str(ca)]
    os.environ[CREDENTIAL_VARIABLE] = credential
    raise typer.Exit(client.main(arguments))
