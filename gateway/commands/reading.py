"""`tidegate tail`: what is stored, printed or sent to another subject."""

import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Final

import nats.errors
import typer

from gateway.commands import following, foreground
from gateway.commands.selecting import Device, Tenant, Type, check_names
from gateway.commands.terminal import (
    Config,
    DataDir,
    NatsUrl,
    configure_command_logs,
    fail,
    moment_of,
    nats_settings_of,
    say,
)
from gateway.consumers.errors import ConsumerError
from gateway.events.destinations import NatsDestination, destination_of
from gateway.events.errors import PatternError
from gateway.events.event import Event
from gateway.events.matching import compiled, facts_of
from gateway.events.patterns import parse_pattern
from gateway.settings import Settings
from gateway.stream.errors import StreamError
from gateway.stream.reading.replay import ReplayFilter

app: Final = typer.Typer(add_completion=False)


Since = Annotated[
    str | None, typer.Option(help="Replay from then: 10m, 2h, 1d ago, `all`, or an RFC 3339 time.")
]
Until = Annotated[
    str | None, typer.Option(help="Stop at what was stored then; written like --since.")
]
Where = Annotated[
    str | None, typer.Option(help="Only events that match this pattern of a rule, as JSON.")
]
To = Annotated[
    str | None,
    typer.Option(
        help="Publish there instead: nats:<subject>, with {tenant}, {device}, {type}; needs"
        " --since, and stops at the end."
    ),
]
Speed = Annotated[
    float | None,
    typer.Option(
        min=0.001,
        help="With --to: 1 keeps the pace at which events were stored, 10 is ten times faster;"
        " without, as fast as the target takes them.",
    ),
]


@app.command()
def tail(
    device: Device = None,
    type_: Type = None,
    since: Since = None,
    until: Until = None,
    where: Where = None,
    tenant: Tenant = None,
    dead_letters: Annotated[bool, typer.Option(help="Show the dead letters instead.")] = False,
    follow: Annotated[
        bool, typer.Option(help="Go on with new messages, or stop at the last one.")
    ] = True,
    to: To = None,
    speed: Speed = None,
    config: Config = None,
    nats_url: NatsUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Follow the stored messages, or replay them; each is printed as a JSON line."""
    check_names(tenant=tenant, device=device, message_type=type_)
    if where is not None and dead_letters:
        fail("--where is for events: `tidegate deadletters list` selects letters")
    destination = _destination(to, since, speed, dead_letters=dead_letters)
    begin, follow = moment_of(since), follow and until is None
    wanted = ReplayFilter(
        tenant=tenant,
        device=device,
        message_type=type_,
        since=begin,
        new_only=since is None and follow,
        dead_letters=dead_letters,
        until=_end(until, destination),
        where=_where(where),
    )
    settings = nats_settings_of(config, nats_url, data_dir)
    configure_command_logs(settings, "warning")
    if destination is not None:
        _copy(settings, wanted, destination, speed)
    else:
        _follow(settings, wanted, go_on=follow)


def _follow(settings: Settings, wanted: ReplayFilter, *, go_on: bool) -> None:
    try:
        foreground.run(following.follow(settings, wanted, go_on=go_on, say=say))
    except BrokenPipeError:  # `tidegate tail | head`
        following.leave_pipe()
        sys.exit(128 + signal.SIGPIPE)
    except (nats.errors.Error, StreamError, OSError) as exc:
        fail(f"NATS: {exc or type(exc).__name__}")


def _end(until: str | None, destination: NatsDestination | None) -> datetime | None:
    """A replay into a subject ends at what is stored now: at its pace, more would always come."""
    if until is None and destination is not None:
        return datetime.now(UTC)
    return moment_of(until, "--until")


def _destination(
    to: str | None, since: str | None, speed: float | None, *, dead_letters: bool
) -> NatsDestination | None:
    if to is None:
        if speed is not None:
            fail("--speed is for --to")
        return None
    if dead_letters:
        fail("--to is for events: `tidegate deadletters redrive` sends letters again")
    if since is None:
        fail("--to needs --since: say from when on, or `all`")
    try:
        found = destination_of(to)
    except ValueError as exc:
        fail(f"--to: {exc}")
    if not isinstance(found, NatsDestination):
        fail("--to: a replay goes to nats:<subject>; a rule with `from` goes elsewhere")
    return found


def _copy(
    settings: Settings, wanted: ReplayFilter, destination: NatsDestination, speed: float | None
) -> None:
    try:
        work = foreground.run(following.copy(settings, wanted, destination, speed=speed, say=say))
    except ConsumerError as exc:
        fail(f"--to: {exc}")
    except (nats.errors.Error, StreamError, OSError) as exc:
        fail(f"NATS: {exc or type(exc).__name__}")
    say(f"{work.sent} events sent to {destination} as {work.name}")
    for each in work.rejected:
        say(f"event {each.event.stream_seq}: {each.error}: {each.detail}")
    if work.rejected:
        raise typer.Exit(1)


def _where(text: str | None) -> Callable[[str, bytes, bytes, int, int], bool] | None:
    """Whether a message matches the pattern."""
    if text is None:
        return None
    try:
        matches = compiled(parse_pattern(text))
    except PatternError as exc:
        fail(f"--where: {exc}")

    def holds(subject: str, headers: bytes, data: bytes, stream_seq: int, stored_ns: int) -> bool:
        return matches(facts_of(Event(subject, headers, data, stream_seq, stored_ns)))

    return holds
