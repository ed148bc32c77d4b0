"""`tidegate route`: runs the rules of an events file."""

from pathlib import Path
from typing import Annotated, Final

import nats.errors
import typer
import uvloop

from gateway.commands.terminal import Config, DataDir, NatsUrl, fail, nats_settings_of
from gateway.consumers.errors import ConsumerError
from gateway.edge.errors import EdgeError
from gateway.events.document import read_events_file
from gateway.events.errors import EventsError
from gateway.events.rules import Rule
from gateway.ops.errors import OpsError
from gateway.routing import RuleTargets, rule_readings
from gateway.settings import Settings, secrets_of
from gateway.sinks import SinkProcess
from gateway.stream.errors import StreamError
from gateway.telemetry.errors import TelemetryError
from gateway.telemetry.logs import configure_logs

_EVENTS: Final = Path("config/events.toml")
_OPS_PORT: Final = 9092

app: Final = typer.Typer(add_completion=False)


@app.command()
def route(
    events: Annotated[
        Path, typer.Option("--events", "-e", help="The events file.", dir_okay=False)
    ] = _EVENTS,
    only: Annotated[
        list[str] | None, typer.Option(help="Run this rule only; may be repeated.")
    ] = None,
    ops_port: Annotated[
        int, typer.Option(help="Port for operators; 0 picks a free one.")
    ] = _OPS_PORT,
    config: Config = None,
    nats_url: NatsUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Send events that match a rule to its target, as the events file says.

    Several processes may run with the same file: one runs a rule, the others stand by.
    """
    settings = nats_settings_of(config, nats_url, data_dir)
    rules = _chosen(events, only)
    configure_logs(settings.log.level, settings.log.format, secrets=secrets_of(settings))
    try:
        uvloop.run(_run(settings, rules, ops_port))
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


async def _run(settings: Settings, rules: tuple[Rule, ...], ops_port: int) -> None:
    targets = RuleTargets(traced=settings.trace.endpoint is not None)
    process = SinkProcess(
        settings,
        rules,
        kind="rule",
        target_of=targets.of,
        readings=rule_readings,
        redrive_target_of=targets.of_redrives,
        ops_host=settings.ops.host,
        ops_port=ops_port,
    )
    await process.run()


def _chosen(events: Path, only: list[str] | None) -> tuple[Rule, ...]:
    try:
        rules = read_events_file(events).rules
    except EventsError as exc:
        fail(str(exc))
    if not rules:
        fail("the events file has no [[rule]]")
    known = {rule.name: rule for rule in rules}
    for name in only or ():
        if name not in known:
            fail(f"--only {name}: there are {', '.join(known)}")
    return tuple(known[name] for name in dict.fromkeys(only or known))
