"""`tidegate sink`."""

from pathlib import Path
from typing import Annotated, Final

import nats.errors
import typer
import uvloop

from gateway.commands import foreground
from gateway.commands.terminal import Config, DataDir, NatsUrl, fail, nats_settings_of
from gateway.consumers.errors import ConsumerError, TargetRefused
from gateway.consumers.files import FilesTarget
from gateway.consumers.postgres.catalogue import BOOKKEEPING, table_ddl
from gateway.consumers.postgres.rebuild import forget_position
from gateway.consumers.postgres.target import PostgresTarget
from gateway.consumers.target import Target
from gateway.edge.errors import EdgeError
from gateway.events.document import (
    EventsDocument,
    PostgresSink,
    Sink,
    read_events_file,
    redrives_of,
)
from gateway.events.errors import EventsError
from gateway.ops.errors import OpsError
from gateway.settings import Settings, secrets_of
from gateway.sinks import SinkProcess, own_readings
from gateway.stream.errors import StreamError
from gateway.telemetry.errors import TelemetryError
from gateway.telemetry.logs import configure_logs

DATABASE_URL: Final = "TIDEGATE_SINK_DATABASE_URL"
_OPS_PORT: Final = 9091
_EVENTS: Final = Path("config/events.toml")

app: Final = typer.Typer(add_completion=False)

EventsFile = Annotated[
    Path, typer.Option("--events", "-e", help="The events file.", dir_okay=False)
]


@app.command()
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
        typer.Option("--rebuild", help="Start over: forget the positions; tables must be empty."),
    ] = False,
    ops_port: Annotated[
        int, typer.Option(help="Port for operators; 0 picks a free one.")
    ] = _OPS_PORT,
    config: Config = None,
    nats_url: NatsUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Write events into tables or files, each exactly once, as the events file says.

    Several processes may run with the same file: one writes a sink, the others stand by.
    """
    settings = nats_settings_of(config, nats_url, data_dir)
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
    except (
        ConsumerError,
        EdgeError,
        EventsError,
        OpsError,
        StreamError,
        TelemetryError,
        nats.errors.Error,
    ) as exc:
        fail(str(exc))


async def _run(settings: Settings, sinks: tuple[Sink, ...], url: str | None, ops_port: int) -> None:
    process = SinkProcess(
        settings,
        sinks,
        kind="sink",
        target_of=lambda sink, owner, _link: _target(sink, owner, url),
        readings=own_readings,
        redrive_target_of=lambda sink, owner, _link: _target(redrives_of(sink), owner, url),
        ops_host=settings.ops.host,
        ops_port=ops_port,
    )
    await process.run()


def _target(sink: Sink, owner: str, url: str | None) -> Target:
    if not isinstance(sink, PostgresSink):
        return FilesTarget(sink)
    if url is None:
        raise TargetRefused(f"sink {sink.name} needs --database-url")
    return PostgresTarget(sink, url, owner=owner)


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
