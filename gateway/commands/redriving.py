"""What `tidegate deadletters redrive` does: loaded by that command only."""

import os
import secrets
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import typer

from gateway.commands.terminal import fail, say
from gateway.consumers.letters.redrive import Outcome, Redrive
from gateway.events.dead_letters import Selection
from gateway.events.document import EventsDocument, read_events_file
from gateway.events.errors import EventsError
from gateway.events.redriving import Check, Patch, Readers, Redriven, merged
from gateway.nats_access import nats_address
from gateway.node.reloaded.schemas_in_force import read_folder
from gateway.settings import Settings
from gateway.stream.link.client import LinkClient
from gateway.stream.link.dialing import connect_once
from gateway.stream.reading.reader import OneConnection
from gateway.stream.server.roles import Role

_NAME: Final = "tidegate-deadletters"
_REFUSALS_SHOWN: Final = 20


class Wishes(NamedTuple):
    """The options of the command that select no letters."""

    patch: str | None
    rate: float | None
    dry_run: bool
    events: Path | None


def prepared(
    settings: Settings, selection: Selection, wishes: Wishes
) -> Callable[[LinkClient], Coroutine[Any, Any, Outcome]]:
    """The redrive, checked as far as that needs no NATS.

    Raises:
        typer.Exit: the patch or the events file cannot be used.
    """
    document = _document(wishes.events if wishes.events is not None else settings.events.file)
    check = _schemas(document)
    merge = _patch(wishes.patch)

    async def send(client: LinkClient) -> Outcome:
        publisher = await connect_once(nats_address(settings, Role.GATEWAY), name=_NAME)
        try:
            work = Redrive(
                OneConnection(client),
                publisher,
                selection,
                patch=merge,
                check=check,
                readers=_readers(document),
                rate_per_s=wishes.rate,
                owner=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
            )
            if not wishes.dry_run:
                return await work.run()
            planned, outcome = await work.preview()
            for event in planned:
                typer.echo(_planned(event))
            return outcome
        finally:
            await publisher.close()

    return send


def report(outcome: Outcome) -> None:
    """Say what was sent, and what was not.

    Raises:
        typer.Exit: with status 1, if a letter was refused.
    """
    say(f"{outcome.sent} sent, {outcome.known} were sent before, {len(outcome.refused)} refused")
    for seq, reason in outcome.refused[:_REFUSALS_SHOWN]:
        say(f"letter {seq}: {reason}")
    if len(outcome.refused) > _REFUSALS_SHOWN:
        say(f"and {len(outcome.refused) - _REFUSALS_SHOWN} more")
    if outcome.refused:
        raise typer.Exit(1)


def _planned(event: Redriven) -> bytes:
    """A line of what would be sent."""
    return msgspec.json.encode(
        {
            "letter": event.letter.seq,
            "subject": event.subject,
            "data": msgspec.Raw(event.payload),
        }
    )


def _document(file: Path | None) -> EventsDocument | None:
    try:
        return read_events_file(file) if file is not None else None
    except EventsError as exc:
        fail(str(exc))


def _schemas(document: EventsDocument | None) -> Check:
    """What checks a redriven event: the schemas of the events file, if there is one."""
    section = document.schemas if document is not None else None
    try:
        if section is not None and section.invalid == "reject":
            return read_folder(section).check
    except EventsError as exc:
        fail(str(exc))
    return lambda _type, _data: None


def _readers(document: EventsDocument | None) -> Readers | None:
    """The consumers that would read a redrive, if the events file says which there are."""
    if document is None:
        return None
    return frozenset(
        [
            *(("rule", rule.name) for rule in document.rules),
            *(("sink", sink.name) for sink in document.sinks),
        ]
    )


def _patch(text: str | None) -> Patch | None:
    if text is None:
        return None
    try:
        found: Patch = msgspec.json.decode(text, type=dict[str, Any])
        merged(b"{}", found)
    except (msgspec.DecodeError, RecursionError) as exc:
        fail(f"--patch is no JSON object: {exc}")
    return found
