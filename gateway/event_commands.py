"""Commands of the event side: `tidegate sink`, `tidegate schema check | export | infer`."""

import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import nats.errors
import typer
import uvloop

from gateway import foreground
from gateway.consumers.catalogue import BOOKKEEPING, table_ddl
from gateway.consumers.errors import ConsumerError
from gateway.consumers.rebuild import forget_position
from gateway.consumers.survey import survey
from gateway.events.asyncapi import asyncapi
from gateway.events.document import EventsDocument, PostgresSink, Sink, read_events_file
from gateway.events.errors import EventsError, SchemaError
from gateway.events.evolution import Compatible, compare
from gateway.events.inference import SchemaProposal
from gateway.events.schemas import Document, parse_schema, registry_of
from gateway.nats_access import nats_address
from gateway.ops.errors import OpsError
from gateway.settings import Settings, secrets_of
from gateway.sinks import SinkProcess
from gateway.stream.errors import StreamError
from gateway.stream.nats_client import connect_once
from gateway.stream.reader import OneConnection
from gateway.stream.rights import Role
from gateway.telemetry.logs import configure_logs
from gateway.terminal import Config, DataDir, NatsUrl, fail, moment_of, settings_of
from tidegate.wire.grammar import is_message_type

DATABASE_URL: Final = "TIDEGATE_SINK_DATABASE_URL"
_OPS_PORT: Final = 9091

EventsFile = Annotated[
    Path, typer.Option("--events", "-e", help="The events file.", dir_okay=False)
]
_EVENTS: Final = Path("config/events.toml")

schema_app: Final = typer.Typer(help="Schemas of events.", no_args_is_help=True)


def sink(
    events: EventsFile = _EVENTS,
    only: Annotated[
        list[str] | None, typer.Option(help="Run this sink only; may be repeated.")
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(
            envvar=DATABASE_URL, show_envvar=True, help="PostgreSQL, as a URL.", show_default=False
        ),
    ] = None,
    database_url_file: Annotated[
        Path | None, typer.Option(help="A file that holds that URL.", dir_okay=False)
    ] = None,
    create: Annotated[
        bool, typer.Option("--create", help="Print the tables that are needed, and end.")
    ] = False,
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="Begin anew: forget the positions; tables must be empty."),
    ] = False,
    ops_port: Annotated[int, typer.Option(help="Ops port; 0 for a free one.")] = _OPS_PORT,
    config: Config = None,
    nats_url: NatsUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Write events into tables or files, each exactly once, as the events file says.

    Several processes may run with the same file: one writes a sink, the others stand by.
    """
    settings = settings_of(
        config,
        {"nats.urls": tuple(nats_url) if nats_url else None, "nats.data_dir": data_dir},
    )
    sinks = _chosen(_document(events), only)
    if create:
        typer.echo(_ddl(sinks), nl=False)
        return
    url = _database_url(database_url, database_url_file)
    configure_logs(settings.log.level, settings.log.format, secrets=secrets_of(settings))
    try:
        if rebuild:
            foreground.run(forget_position(sinks, url))
        uvloop.run(_run(settings, sinks, url, ops_port))
    except (ConsumerError, EventsError, StreamError, OpsError, nats.errors.Error) as exc:
        fail(str(exc))


async def _run(settings: Settings, sinks: tuple[Sink, ...], url: str | None, ops_port: int) -> None:
    process = SinkProcess(
        settings, sinks, database_url=url, ops_host=settings.ops.host, ops_port=ops_port
    )
    await process.run()


def _document(events: Path) -> EventsDocument:
    try:
        return read_events_file(events)
    except EventsError as exc:
        fail(str(exc))


def _chosen(document: EventsDocument, only: list[str] | None) -> tuple[Sink, ...]:
    if not document.sinks:
        fail("the events file has no [[sink]]")
    if not only:
        return document.sinks
    known = {sink.name: sink for sink in document.sinks}
    for name in only:
        if name not in known:
            fail(f"--only {name}: there are {', '.join(known)}")
    return tuple(known[name] for name in dict.fromkeys(only))


def _database_url(url: str | None, file: Path | None) -> str | None:
    if file is None:
        return url
    if url is not None:
        fail(f"--database-url (or {DATABASE_URL}) and --database-url-file exclude each other")
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        fail(f"--database-url-file: {exc}")


def _ddl(sinks: tuple[Sink, ...]) -> str:
    wanted = [sink for sink in sinks if isinstance(sink, PostgresSink)]
    tables = [table_ddl(sink.table, sink.columns, sink.key) for sink in wanted]
    return "\n".join([*tables, BOOKKEEPING]) if wanted else ""


@schema_app.command()
def check(
    old: Annotated[Path, typer.Argument(help="The schema in force.", dir_okay=False)],
    new: Annotated[Path, typer.Argument(help="The one to come.", dir_okay=False)],
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


@schema_app.command()
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
    typer.echo(json.dumps(asyncapi(documents, title=title, version=version), indent=2))


@schema_app.command()
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
    settings = settings_of(
        config,
        {"nats.urls": tuple(nats_url) if nats_url else None, "nats.data_dir": data_dir},
    )
    try:
        proposal = foreground.run(_survey(settings, type_, moment, events_max))
    except (StreamError, nats.errors.Error, TimeoutError) as exc:
        fail(f"NATS: {exc or type(exc).__name__}")
    if not proposal.events:
        fail(f"no event of type {type_} is stored since then")
    typer.echo(json.dumps(proposal.schema(), indent=2))


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


app: Final = typer.Typer()
app.command()(sink)
app.add_typer(schema_app, name="schema")
