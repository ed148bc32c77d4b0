"""`tidegate rules test | lint`: what the rules of an events file do with events, without NATS."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gateway.commands.terminal import fail
from gateway.events.document import EventsDocument, read_events_file
from gateway.events.errors import EventsError
from gateway.events.explaining import first_failure
from gateway.events.linting import never
from gateway.events.patterns import MEMBERS
from gateway.events.rules import Rule

EventsFile = Annotated[
    Path, typer.Option("--events", "-e", help="The events file.", dir_okay=False)
]
_EVENTS: Final = Path("config/events.toml")
_DEFAULTS: Final = {"tenant": "default"}

app: Final = typer.Typer(add_completion=False)
rules_app: Final = typer.Typer(
    help="Check the rules of the events file, and try them on events.", no_args_is_help=True
)
app.add_typer(rules_app, name="rules")


@rules_app.command("test")
def try_events(
    file: Annotated[
        str, typer.Argument(help="Events as JSON, such as `tidegate tail` prints; - reads stdin.")
    ],
    events: EventsFile = _EVENTS,
    only: Annotated[list[str] | None, typer.Option(help="This rule only; may be repeated.")] = None,
) -> None:
    """Say which rules match events, and of each other rule the first condition that fails."""
    rules = _rules(_document(events), only)
    count = 0
    for count, event in enumerate(_events_in(file), 1):
        typer.echo(f"event {count}: {_title(event)}")
        for rule in rules:
            failure = first_failure(rule.when, event)
            verdict = f"matches -> {rule.to}" if failure is None else str(failure)
            typer.echo(f"  {rule.name}: {verdict}")
    if not count:
        fail(f"{file} holds no event")


@rules_app.command()
def lint(events: EventsFile = _EVENTS) -> None:
    """Name each condition that no event can satisfy. Ends with status 1 if there is one."""
    document = _document(events)
    found = list(never(_rules(document, None), _required_schemas(document)))
    for line in found:
        typer.echo(line)
    if found:
        raise typer.Exit(1)


def _document(events: Path) -> EventsDocument:
    try:
        return read_events_file(events)
    except EventsError as exc:
        fail(str(exc))


def _rules(document: EventsDocument, only: list[str] | None) -> tuple[Rule, ...]:
    if not document.rules:
        fail("the events file has no [[rule]]")
    known = {rule.name: rule for rule in document.rules}
    for name in only or ():
        if name not in known:
            fail(f"--only {name}: there are {', '.join(known)}")
    return tuple(known[name] for name in only or known)


def _required_schemas(document: EventsDocument) -> set[str] | None:
    """The types that have a schema, if the gateway rejects all others."""
    schemas = document.schemas
    if schemas is None or schemas.unknown_type != "reject":
        return None
    return {path.name.removesuffix(".json") for path in schemas.folder.glob("*.json")}


def _events_in(file: str) -> Iterator[dict[str, Any]]:
    """One JSON document (an event, or an array of events), or one event a line."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        fail(f"{file}: {exc}")
    for place, written in _decoded(text, file):
        if not isinstance(written, dict):
            fail(f"{place}: an event is a JSON object with {', '.join(MEMBERS)}")
        yield _DEFAULTS | {name: written[name] for name in MEMBERS if name in written}


def _decoded(text: str, file: str) -> Iterator[tuple[str, Any]]:
    try:
        whole = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        yield from _lines(text, file)
        return
    for number, each in enumerate(whole if isinstance(whole, list) else [whole], 1):
        yield f"{file}: event {number}", each


def _lines(text: str, file: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            yield f"{file}, line {number}", json.loads(line)
        except (json.JSONDecodeError, RecursionError) as exc:
            fail(f"{file}, line {number}: {exc}")


def _title(event: dict[str, Any]) -> str:
    return f"{event.get('type', 'no type')} of {event['tenant']}/{event.get('device', 'no device')}"
