"""`tidegate deadletters list | show | redrive | export`."""

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec
import nats.errors
import typer

from gateway.commands import foreground
from gateway.commands.selecting import Device, Tenant, Type, check_names
from gateway.commands.terminal import (
    Config,
    DataDir,
    NatsUrl,
    fail,
    moment_of,
    nats_settings_of,
    say,
)
from gateway.consumers.errors import ConsumerError
from gateway.consumers.letters.reading import letters_in, redriven_among, redriven_seqs
from gateway.events.dead_letters import STAGES, Letter, Selection
from gateway.nats_access import nats_address
from gateway.settings import Settings
from gateway.stream.errors import StreamError
from gateway.stream.link.client import LinkClient
from gateway.stream.link.dialing import connect_once
from gateway.stream.reading.reader import OneConnection
from gateway.stream.server.roles import Role

_NAME: Final = "tidegate-deadletters"

Stage = Annotated[str | None, typer.Option(help=f"One of {', '.join(STAGES)}.")]
Consumer = Annotated[str | None, typer.Option(help="The rule or sink that wrote them.")]
Error = Annotated[str | None, typer.Option(help="The error, such as `schema`.")]
Since = Annotated[
    str | None, typer.Option(help="Stored from then on: 10m, 2h, 1d ago, or an RFC 3339 time.")
]
Until = Annotated[str | None, typer.Option(help="Stored before then.")]

PatchText = Annotated[
    str | None, typer.Option("--patch", help="A JSON merge patch for the data of each, as JSON.")
]
Rate = Annotated[float | None, typer.Option(help="At most so many a second.", min=0.01)]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be sent, and send nothing.")
]
EventsFile = Annotated[
    Path | None,
    typer.Option(
        "--events", "-e", help="The events file: its schemas, rules and sinks.", dir_okay=False
    ),
]

app: Final = typer.Typer()
letters_app: Final = typer.Typer(
    help="List, show and export dead letters of all stages, and send them again.",
    no_args_is_help=True,
)
app.add_typer(letters_app, name="deadletters")
T = TypeVar("T")


@letters_app.command("list")
def list_(
    stage: Stage = None,
    consumer: Consumer = None,
    error: Error = None,
    tenant: Tenant = None,
    device: Device = None,
    type_: Type = None,
    since: Since = None,
    until: Until = None,
    after: Annotated[int, typer.Option(help="Start after the letter with this number.", min=0)] = 0,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=10_000)] = 50,
    config: Config = None,
    nats_url: NatsUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Show letters, oldest first, one a line, and which of them were sent again."""
    selection = _selection(stage, consumer, error, tenant, device, type_, since, until)
    settings = nats_settings_of(config, nats_url, data_dir)

    async def page(client: LinkClient) -> tuple[list[Letter], set[int]]:
        found: list[Letter] = []
        async for letter in letters_in(OneConnection(client), selection, after=after, few=True):
            found.append(letter)
            if len(found) > limit:
                break
        return found, await redriven_among(client, found)

    found, sent = _run(settings, page)
    for letter in found[:limit]:
        typer.echo(_line(letter, sent=letter.seq in sent))
    if len(found) > limit:
        say(f"there are more: --after {found[limit - 1].seq}")


@letters_app.command()
def show(
    seq: Annotated[int, typer.Argument(help="The letter's number in the list.", min=1)],
    config: Config = None,
    nats_url: NatsUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Show one letter whole, as JSON."""
    settings = nats_settings_of(config, nats_url, data_dir)

    async def one(client: LinkClient) -> tuple[Letter | None, set[int]]:
        async for letter in letters_in(OneConnection(client), Selection(), after=seq - 1, few=True):
            if letter.seq != seq:
                break
            return letter, await redriven_among(client, [letter])
        return None, set()

    letter, sent = _run(settings, one)
    if letter is None:
        fail(f"there is no letter {seq}")
    typer.echo(msgspec.json.format(msgspec.json.encode(_whole(letter, sent=bool(sent)))))


@letters_app.command()
def export(
    stage: Stage = None,
    consumer: Consumer = None,
    error: Error = None,
    tenant: Tenant = None,
    device: Device = None,
    type_: Type = None,
    since: Since = None,
    until: Until = None,
    config: Config = None,
    nats_url: NatsUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Write letters whole, one JSON object a line."""
    selection = _selection(stage, consumer, error, tenant, device, type_, since, until)
    settings = nats_settings_of(config, nats_url, data_dir)

    async def write(client: LinkClient) -> None:
        link = OneConnection(client)
        sent = await redriven_seqs(link)
        async for letter in letters_in(link, selection):
            typer.echo(msgspec.json.encode(_whole(letter, sent=letter.seq in sent)))

    _run(settings, write)


@letters_app.command()
def redrive(
    stage: Stage = None,
    consumer: Consumer = None,
    error: Error = None,
    tenant: Tenant = None,
    device: Device = None,
    type_: Type = None,
    since: Since = None,
    until: Until = None,
    patch: PatchText = None,
    rate: Rate = None,
    dry_run: DryRun = False,
    events: EventsFile = None,
    config: Config = None,
    nats_url: NatsUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Send letters again, each once: as events, or to the rule or sink that wrote them.

    What was sent is remembered: the command may be interrupted and run again.
    """
    from gateway.commands import redriving  # noqa: PLC0415  # reads schemas and rules: takes time

    selection = _selection(stage, consumer, error, tenant, device, type_, since, until)
    settings = nats_settings_of(config, nats_url, data_dir)
    send = redriving.prepared(settings, selection, redriving.Wishes(patch, rate, dry_run, events))
    redriving.report(_run(settings, send))


def _run(settings: Settings, work: Callable[[LinkClient], Coroutine[Any, Any, T]]) -> T:
    """Connect as an operator, do the work, and end with what went wrong in words."""

    async def connected() -> T:
        client = await connect_once(nats_address(settings, Role.OPERATORS), name=_NAME)
        try:
            return await work(client)
        finally:
            await client.close()

    try:
        return foreground.run(connected())
    except ConsumerError as exc:
        fail(str(exc))
    except (StreamError, nats.errors.Error, TimeoutError) as exc:
        fail(f"NATS: {exc or type(exc).__name__}")


def _selection(
    stage: str | None,
    consumer: str | None,
    error: str | None,
    tenant: str | None,
    device: str | None,
    type_: str | None,
    since: str | None,
    until: str | None,
) -> Selection:
    if stage is not None and stage not in STAGES:
        fail(f"--stage {stage}: there are {', '.join(STAGES)}")
    check_names(consumer=consumer, tenant=tenant, device=device, message_type=type_)
    begin, end = moment_of(since), moment_of(until, "--until")
    return Selection(stage, consumer, error, tenant, device, type_, begin, end)


def _line(letter: Letter, *, sent: bool) -> str:
    stage = f"{letter.stage}/{letter.consumer}" if letter.consumer else letter.stage
    words = [
        str(letter.seq),
        _stored(letter).isoformat(timespec="seconds"),
        stage,
        letter.error,
        f"{letter.tenant}/{letter.device}",
        letter.type or "-",
        f"(redrive {letter.redrives} failed)" if letter.redrives else "",
        "(sent again)" if sent else "",
        letter.detail,
    ]
    return "  ".join(filter(None, words))


def _stored(letter: Letter) -> datetime:
    return datetime.fromtimestamp(letter.stored_at_ns / 1e9, UTC)


def _whole(letter: Letter, *, sent: bool) -> dict[str, Any]:
    return {
        "letter": letter.seq,
        "stored": _stored(letter),
        "stage": letter.stage,
        "consumer": letter.consumer or None,
        "error": letter.error,
        "detail": letter.detail,
        "tenant": letter.tenant,
        "device": letter.device,
        "type": letter.type or None,
        "sent_again": sent,
        "redrives": letter.redrives,
        "truncated": letter.truncated,
        "headers": letter.headers,
        "original": letter.data.decode(errors="replace"),
    }
