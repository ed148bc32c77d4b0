"""`tidegate tail`."""

import signal
import sys
from collections.abc import Callable
from typing import Annotated, Final

import nats.errors
import typer

from gateway.commands import following, foreground
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
from gateway.events.errors import PatternError
from gateway.events.event import Event
from gateway.events.matching import compiled, facts_of
from gateway.events.patterns import parse_pattern
from gateway.stream.errors import StreamError
from gateway.stream.replay import ReplayFilter
from tidegate.wire.grammar import is_message_type, is_token

app: Final = typer.Typer(add_completion=False)


@app.command()
def tail(
    device: Annotated[str | None, typer.Option(help="Only this device.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only this message type.")] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Replay from then: 10m, 2h, 1d ago, `all`, or an RFC 3339 time."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Stop at what was stored then; forms as of --since.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(help="Only events that match this pattern of a rule, as JSON."),
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    dead_letters: Annotated[bool, typer.Option(help="The dead letters instead.")] = False,
    follow: Annotated[bool, typer.Option(help="Go on with what comes; else stop.")] = True,
    config: Config = None,
    nats_url: NatsUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Follow what is stored, or replay it, one JSON line a message."""
    for name, value in (("--device", device), ("--tenant", tenant)):
        if value is not None and not is_token(value):
            fail(f"{name} must match [A-Za-z0-9_-]{{1,64}}")
    if type_ is not None and not is_message_type(type_):
        fail("--type is one to eight tokens [A-Za-z0-9_-]{1,64} joined by dots")
    if where is not None and dead_letters:
        fail("--where is for events: `tidegate deadletters list` selects letters")
    begin, follow = moment_of(since), follow and until is None
    wanted = ReplayFilter(
        tenant=tenant,
        device=device,
        message_type=type_,
        since=begin,
        new_only=since is None and follow,
        dead_letters=dead_letters,
        until=moment_of(until, "--until"),
        where=_where(where),
    )
    settings = nats_settings_of(config, nats_url, data_dir)
    configure_command_logs(settings, "warning")
    try:
        foreground.run(following.follow(settings, wanted, go_on=follow, say=say))
    except BrokenPipeError:  # `tidegate tail | head`
        following.leave_pipe()
        sys.exit(128 + signal.SIGPIPE)
    except (nats.errors.Error, StreamError, OSError) as exc:
        fail(f"NATS: {exc or type(exc).__name__}")


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
