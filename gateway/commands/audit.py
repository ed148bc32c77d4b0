"""`tidegate audit`."""

import contextlib
from datetime import datetime
from typing import Annotated, Final

import nats.errors
import typer

from gateway.commands import foreground
from gateway.commands.terminal import Config, DataDir, NatsUrl, fail, moment_of, nats_settings_of
from gateway.consumers.stored_now import stored_now
from gateway.events.auditing import Audit
from gateway.events.event import Event
from gateway.nats_access import nats_address
from gateway.settings import Settings
from gateway.stream.errors import StreamError
from gateway.stream.link.dialing import connect_once
from gateway.stream.names import DEADLETTERS, EVENTS
from gateway.stream.reading.reader import OneConnection
from gateway.stream.reading.replay import unix_ns
from gateway.stream.server.roles import Role
from tidegate.wire.grammar import is_token

_NAME: Final = "tidegate-audit"

app: Final = typer.Typer(add_completion=False)


@app.command()
def audit(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    device: Annotated[str | None, typer.Option(help="Only this device.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Events stored from then on: 10m, 2h, 1d ago, or a time.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Events stored before then.")] = None,
    config: Config = None,
    nats_url: NatsUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Prove that each seq of an outbox is stored once and in order, as an event or a dead letter.

    Ends with status 1 if one is not. The digest is the same for the same range of the stream.
    """
    for name, value in (("--tenant", tenant), ("--device", device)):
        if value is not None and not is_token(value):
            fail(f"{name} must match [A-Za-z0-9_-]{{1,64}}")
    begin, end = moment_of(since), moment_of(until, "--until")
    settings = nats_settings_of(config, nats_url, data_dir)
    try:
        found = foreground.run(_audited(settings, f"{tenant or '*'}.{device or '*'}", begin, end))
    except (StreamError, nats.errors.Error, TimeoutError) as exc:
        fail(f"NATS: {exc or type(exc).__name__}")
    typer.echo(
        f"{found.events} events ({found.others} of them redriven or from other programs),"
        f" {found.letters} letters, {found.outboxes} outboxes"
    )
    typer.echo(f"digest {found.digest}")
    problems = list(found.problems())
    for problem in problems:
        typer.echo(problem)
    typer.echo("not sound" if problems else "sound: every seq once, and in order")
    if problems:
        raise typer.Exit(1)


async def _audited(
    settings: Settings, source: str, since: datetime | None, until: datetime | None
) -> Audit:
    client = await connect_once(nats_address(settings, Role.OPERATORS), name=_NAME)
    link, found = OneConnection(client), Audit()
    until_ns = unix_ns(until) if until is not None else float("inf")
    try:
        # Events first: a letter that is stored meanwhile can fill a gap, but makes none.
        events = stored_now(link, EVENTS, [f"events.{source}.>"], Event, since=since)
        async with contextlib.aclosing(events):
            async for event in events:
                if event.stored_at_ns >= until_ns:
                    break
                found.event(event.stream_seq, event.subject, event.message_id, event.data)
        async for letter in stored_now(link, DEADLETTERS, [f"deadletters.{source}"], Event):
            found.letter(letter.message_id)
    finally:
        await client.close()
    return found
