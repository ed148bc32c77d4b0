"""`tidegate schema check | export | infer`."""

import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import nats.errors
import typer

from gateway.commands import foreground
from gateway.commands.terminal import (
    Config,
    DataDir,
    NatsUrl,
    fail,
    moment_of,
    nats_settings_of,
)
from gateway.consumers.survey import survey
from gateway.events.asyncapi import asyncapi
from gateway.events.errors import SchemaError
from gateway.events.evolution import Compatible, compare
from gateway.events.inference import SchemaProposal
from gateway.events.schemas import Document, parse_schema, registry_of
from gateway.nats_access import nats_address
from gateway.settings import Settings
from gateway.stream.errors import StreamError
from gateway.stream.link.dialing import connect_once
from gateway.stream.reading.reader import OneConnection
from gateway.stream.server.roles import Role
from tidegate.wire.grammar import is_message_type

app: Final = typer.Typer(
    help="Compare, propose and export the schemas of events.",
    no_args_is_help=True,
    add_completion=False,
)


@app.command()
def check(
    old: Annotated[Path, typer.Argument(help="The schema in force.", dir_okay=False)],
    new: Annotated[Path, typer.Argument(help="The new schema.", dir_okay=False)],
) -> None:
    """Does NEW let in every event that OLD let in? `yes`, `no` with such an event, `cannot tell`.

    Anything but `yes` ends with status 1, so that a pipeline stops.
    """
    try:
        before, after = (parse_schema(path.name, _bytes_of(path)) for path in (old, new))
        registry = registry_of(_folder(new.parent))
        found = compare(new.name, before, after, registry)
    except SchemaError as exc:
        fail(str(exc))
    typer.echo(found.verdict.value if found.example is None else f"no: {found.example}")
    if found.verdict is not Compatible.YES:
        raise typer.Exit(1)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="The folder of schemas.", file_okay=False)],
    title: Annotated[str, typer.Option(help="Title of the document.")] = "Fleet events",
    version: Annotated[str, typer.Option(help="Version of the document.")] = "1",
) -> None:
    """Write the schemas of a folder as an AsyncAPI 3 document."""
    try:
        documents = _folder(folder)
    except SchemaError as exc:
        fail(str(exc))
    if not documents:
        fail(f"{folder} holds no *.json")
    _show(asyncapi(documents, title=title, version=version))


@app.command()
def infer(
    type_: Annotated[str, typer.Option("--type", help="The message type.")],
    since: Annotated[str, typer.Option(help="Look at events from then: 10m, 2h, 1d.")] = "1h",
    events_max: Annotated[int, typer.Option("--events", help="At most so many.", min=1)] = 100_000,
    config: Config = None,
    nats_url: NatsUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Propose a schema from stored events."""
    if not is_message_type(type_):
        fail("--type is one to eight tokens [A-Za-z0-9_-]{1,64} joined by dots")
    moment = moment_of(since)
    settings = nats_settings_of(config, nats_url, data_dir)
    try:
        proposal = foreground.run(_survey(settings, type_, moment, events_max))
    except (StreamError, nats.errors.Error, TimeoutError) as exc:
        fail(f"NATS: {exc or type(exc).__name__}")
    if not proposal.events:
        fail(f"no event of type {type_} is stored since then")
    _show(proposal.schema())


def _show(document: Document) -> None:
    """ASCII only: names of members come from devices, and may hold control characters."""
    typer.echo(json.dumps(document, indent=2))


async def _survey(
    settings: Settings, message_type: str, since: datetime | None, events_max: int
) -> SchemaProposal:
    client = await connect_once(
        nats_address(settings, Role.OPERATORS), name="tidegate-schema-infer"
    )
    try:
        return await survey(OneConnection(client), message_type, since, events_max)
    finally:
        await client.close()


def _folder(folder: Path) -> Mapping[str, Document]:
    """
    Raises:
        SchemaError: a file is not JSON.
    """
    return {path.name: parse_schema(path.name, _bytes_of(path)) for path in folder.glob("*.json")}


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise SchemaError(f"{path}: {os.strerror(exc.errno or 0)}") from exc
