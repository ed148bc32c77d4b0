"""The command `tidegate`."""

import asyncio
import contextlib
import importlib.util
import json
import logging
import os
import shlex
import signal
import ssl
import sys
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

try:
    import nats.errors
    import typer
    import uvloop
except ModuleNotFoundError as missing:  # a plain install is the client alone
    sys.exit(f"tidegate: {missing.name} is missing: pip install 'tidegate[gateway]'")

from clients import DeviceError
from clients.terminal import TerminalOptions, serve_terminal
from gateway import checks, development, event_commands, following, foreground, operate
from gateway.admission.errors import AdmissionError
from gateway.app import Gateway
from gateway.cluster.errors import ClusterError
from gateway.edge.errors import EdgeError
from gateway.errors import GatewayError
from gateway.events.errors import EventsError
from gateway.ops.errors import OpsError
from gateway.session.grammar import is_message_type, is_token
from gateway.settings import Settings, SettingsError, secrets_of
from gateway.stream.errors import StreamError
from gateway.stream.replay import ReplayFilter
from gateway.streams import provision_streams
from gateway.telemetry.logs import configure_logs, hide
from gateway.terminal import Config, DataDir, fail, moment_of, settings_of

_DEVICE_URL: Final = "ws://127.0.0.1:8080/v1/device"
_OPS_URL: Final = "http://127.0.0.1:9090"
_T = TypeVar("_T")

app: Final = typer.Typer(
    name="tidegate",
    help="WebSocket gateway for device fleets, in front of NATS JetStream.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Entry point of the `tidegate` command."""
    app(prog_name="tidegate")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tidegate {package_version('tidegate')}")
        raise typer.Exit


@app.callback()
def _tidegate(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and end."
        ),
    ] = False,
) -> None:
    """WebSocket gateway for device fleets, in front of NATS JetStream."""
    del version


@app.command()
def serve(
    config: Config = None,
    port: Annotated[int | None, typer.Option(help="Devices' port; 0 for a free one.")] = None,
    ops_port: Annotated[int | None, typer.Option(help="Ops port; 0 for a free one.")] = None,
    nats_url: Annotated[
        list[str] | None, typer.Option(help="NATS server of yours; may be repeated.")
    ] = None,
    data_dir: DataDir = None,
    hint: Annotated[bool, typer.Option(help="Print how to connect a device.")] = False,
) -> None:
    """Run the gateway, with an embedded NATS server unless --nats-url is given."""
    settings = settings_of(
        config,
        {
            "server.port": port,
            "ops.port": ops_port,
            "nats.urls": tuple(nats_url) if nats_url else None,
            "nats.data_dir": data_dir,
        },
    )
    configure_logs(settings.log.level, settings.log.format, secrets=secrets_of(settings))

    async def run() -> None:
        gateway = Gateway(settings)
        await gateway.run(on_ready=_print_hint if hint else None)

    try:
        uvloop.run(run())
    except (
        SettingsError,
        AdmissionError,
        ClusterError,
        EdgeError,
        EventsError,
        GatewayError,
        OpsError,
        StreamError,
        nats.errors.Error,
    ) as exc:
        fail(str(exc))
    except OSError as exc:
        fail(str(exc))


@app.command()
def token(
    device: Annotated[str, typer.Argument(help="Device id, the `sub` of the credential.")],
    data_dir: DataDir = None,
    tenant: Annotated[str, typer.Option(help="Tenant.")] = "default",
    group: Annotated[str, typer.Option(help="Site or depot.")] = "default",
    urgent: Annotated[bool, typer.Option(help="First in a storm.")] = False,
    hours: Annotated[float, typer.Option(help="Until it expires.", min=0.001)] = 24.0,
) -> None:
    """Mint a development credential for DEVICE."""
    for name, value in (("DEVICE", device), ("--tenant", tenant), ("--group", group)):
        if not is_token(value):
            fail(f"{name} must match [A-Za-z0-9_-]{{1,64}}")
    claims = {"tenant": tenant, "group": group, "class": "urgent" if urgent else "normal"}
    directory = settings_of(None, {"nats.data_dir": data_dir}).nats.data_dir
    lifetime_s = max(1, int(hours * 3600))
    typer.echo(development.mint(directory, device, lifetime_s=lifetime_s, claims=claims))


@app.command()
def device(
    device: Annotated[str, typer.Argument(help="Device id.")],
    url: Annotated[
        list[str] | None, typer.Option(help="Gateway; may be repeated, the one that lives is kept.")
    ] = None,
    credential: Annotated[
        str | None, typer.Option("--credential", help="JWT; a development one without.")
    ] = None,
    outbox: Annotated[
        Path | None, typer.Option(help="Outbox file; DEVICE.outbox in the data directory without.")
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(help="PEM file of the authorities that vouch for wss:// gateways."),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Be a device: a JSON line on stdin is a message, acks and commands come out.

    A line is {"type":"battery.low","data":{...}}, or {"result":{"id":"..","ok":true,"data":..}} to
    answer a command. Ends when stdin has ended and everything is acknowledged, or on SIGINT or
    SIGTERM: what is not acknowledged stays in the outbox.
    """
    if not is_token(device):
        fail("DEVICE must match [A-Za-z0-9_-]{1,64}")
    directory = settings_of(None, {"nats.data_dir": data_dir}).nats.data_dir
    if credential is None:
        credential = development.mint(directory, device, lifetime_s=86_400, claims={})
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = outbox if outbox is not None else directory / f"{device}.outbox"
    options = TerminalOptions(url or [_DEVICE_URL], credential, path, _trusting(ca))
    try:
        code = asyncio.run(serve_terminal(options))
    except DeviceError as exc:
        fail(str(exc))
    raise typer.Exit(code)


def _trusting(ca: Path | None) -> ssl.SSLContext | None:
    if ca is None:
        return None
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as exc:  # an ssl.SSLError is one
        fail(f"--ca {ca}: {exc.strerror or exc}")


@app.command()
def tail(
    device: Annotated[str | None, typer.Option(help="Only this device.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only this message type.")] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Replay from then: 10m, 2h, 1d ago, `all`, or an RFC 3339 time."),
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    dead_letters: Annotated[bool, typer.Option(help="The dead letters instead.")] = False,
    follow: Annotated[bool, typer.Option(help="Go on with what comes; else stop.")] = True,
    config: Config = None,
    nats_url: Annotated[list[str] | None, typer.Option(help="NATS server of yours.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Follow what is stored, or replay it, one JSON line a message."""
    for name, value in (("--device", device), ("--tenant", tenant)):
        if value is not None and not is_token(value):
            fail(f"{name} must match [A-Za-z0-9_-]{{1,64}}")
    if type_ is not None and not is_message_type(type_):
        fail("--type is one to eight tokens [A-Za-z0-9_-]{1,64} joined by dots")
    begin = moment_of(since)
    wanted = ReplayFilter(
        tenant=tenant,
        device=device,
        message_type=type_,
        since=begin,
        new_only=since is None and follow,
        dead_letters=dead_letters,
    )
    urls = tuple(nats_url) if nats_url else None
    settings = settings_of(config, {"nats.urls": urls, "nats.data_dir": data_dir})
    _configure_logs(settings, "warning")
    try:
        foreground.run(following.follow(settings, wanted, go_on=follow, say=_say))
    except BrokenPipeError:  # `tidegate tail | head`
        following.leave_pipe()
        sys.exit(128 + signal.SIGPIPE)
    except (nats.errors.Error, StreamError, OSError) as exc:
        fail(f"NATS: {exc or type(exc).__name__}")


@app.command()
def simulate(
    devices: Annotated[int, typer.Option(help="Devices that lose their connection.", min=1)],
    rate: Annotated[float, typer.Option(help="R, admissions a second.", min=0.001)] = 500.0,
    policy: Annotated[
        list[str] | None, typer.Option(help="How they come back; may be repeated.")
    ] = None,
    within: Annotated[
        float | None, typer.Option(help="Find the R that recovers within so many seconds.")
    ] = None,
    burst: Annotated[float, typer.Option(help="Admissions at once.", min=1)] = 100.0,
    refusals: Annotated[float, typer.Option(help="Knocks refused a second.", min=1)] = 1_000.0,
    rtt_ms: Annotated[float, typer.Option(help="Round trip.", min=0)] = 100.0,
    lateness_ms: Annotated[float, typer.Option(help="At most so late for a slot.", min=0)] = 50.0,
    clock_error: Annotated[float, typer.Option(help="Share clocks are off.", min=0, max=0.5)] = 0.0,
    no_shows: Annotated[float, typer.Option(help="Share never coming back.", min=0, max=1)] = 0.0,
    nodes: Annotated[int, typer.Option(help="Nodes that share R.", min=1)] = 1,
    fail_node_at: Annotated[
        float | None, typer.Option(help="A node dies then, seconds after the drop.")
    ] = None,
    down: Annotated[
        float, typer.Option(help="All nodes restart: nobody answers for so many seconds.", min=0)
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 1,
) -> None:
    """What an outage will do, in virtual time: how long, how many knocks, what peak, what rate."""
    from loadtest import simulator  # noqa: PLC0415  # nothing that serves needs it
    from loadtest.policies import POLICIES  # noqa: PLC0415  # as above

    chosen = policy or ["ticket"]
    for name in chosen:
        if name not in POLICIES:
            fail(f"--policy {name}: there are {', '.join(POLICIES)}")
    if fail_node_at is not None and nodes == 1:
        fail("--fail-node-at needs --nodes of 2 or more: somebody must be left")
    plans = [
        simulator.StormPlan(
            devices=devices,
            rate_per_s=rate,
            policy=name,
            burst=burst,
            refusals_per_s=refusals,
            rtt_s=rtt_ms / 1000,
            lateness_s=lateness_ms / 1000,
            clock_error=clock_error,
            no_shows=no_shows,
            nodes=nodes,
            fail_node_at_s=fail_node_at,
            down_s=down,
            seed=seed,
        )
        for name in chosen
    ]
    _say(f"simulating {devices:,} devices, {', '.join(chosen)}; a million take about a minute")
    if within is not None:
        for plan in plans:
            needed = simulator.rate_for(plan, within)
            typer.echo(f"{plan.policy}: R = {needed:,.0f}/s brings all in within {within:g} s")
        return
    simulator.show([simulator.simulate(plan) for plan in plans])


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def storm(context: typer.Context) -> None:
    """A reconnection storm on real sockets, with a verdict and a report; `--help` for scenarios."""
    if importlib.util.find_spec("locust") is None:
        fail("locust is missing: pip install 'tidegate[loadtest]'")
    # In the place of this process: gevent changes how a process waits, and signals reach it. `-P`,
    # or a `cmd.py` in the user's directory would be imported in place of Python's own.
    command = [sys.executable, "-P", "-m", "loadtest.lab", *context.args]
    os.execv(sys.executable, command)  # noqa: S606  # our own module


_REACH: Final = {
    "fleet": "this fleet",
    "pending": "this node, and on the others once Redis answers,",
    "node": "this node",
    "memory": "this node until it stops (its disk refused it),",
}

OpsUrl = Annotated[str, typer.Option(help="Ops page of the gateway.")]


@app.command()
def drain(
    ops_url: OpsUrl = _OPS_URL,
    now: Annotated[bool, typer.Option("--now", help="Give no slots: stop at once.")] = False,
) -> None:
    """Give every device of a gateway a slot elsewhere, then stop it; waits until it has stopped."""
    _operate(operate.drain(ops_url.rstrip("/"), now=now, say=typer.echo))


@app.command()
def revoke(
    device: Annotated[str | None, typer.Option(help="A device, whatever its credential.")] = None,
    jti: Annotated[str | None, typer.Option(help="One credential, by its `jti`.")] = None,
    tenant: Annotated[str, typer.Option(help="Tenant of the device.")] = "default",
    hours: Annotated[float, typer.Option(help="For how long.", min=0.001)] = 24.0,
    undo: Annotated[bool, typer.Option("--undo", help="Let it in again.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="Show what is revoked.")] = False,
    ops_url: OpsUrl = _OPS_URL,
) -> None:
    """Let a device or a credential in no more, on all nodes, and end its session.

    With --undo it may come in again; --list shows what is revoked, one JSON line each.
    """
    url = ops_url.rstrip("/")
    if list_:
        if undo or device is not None or jti is not None:
            fail("--list shows all that is revoked; it takes nothing but --ops-url")
        answer = _operate(operate.ask(f"{url}/revocations"))
        for entry in answer["revocations"]:
            until = datetime.fromtimestamp(entry.pop("until"), UTC)
            typer.echo(json.dumps(entry | {"until": until.isoformat(timespec="seconds")}))
        if answer["total"] > len(answer["revocations"]):
            typer.echo(f"tidegate: {answer['total']} in all; the first are shown", err=True)
        return
    if (device is None) == (jti is None):
        fail("give --device or --jti")
    wanted = {"jti": jti} if jti is not None else {"tenant": tenant, "device": device}
    if undo:
        answer = _operate(operate.ask(f"{url}/unrevoke", wanted))
        if not answer["was_revoked"]:
            typer.echo("tidegate: it was not revoked on this node", err=True)
        typer.echo(f"may come in again on {_REACH[answer['unrevoked']]}")
        return
    until_s = time.time() + hours * 3600
    answer = _operate(operate.ask(f"{url}/revoke", wanted | {"until": until_s}))
    typer.echo(f"revoked on {_REACH[answer['revoked']]} for {hours:g} h")


@app.command()
def provision(
    plan: Annotated[bool, typer.Option("--plan", help="Show the changes; the default.")] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Make the changes.")] = False,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Also those that delete stored messages.")
    ] = False,
    config: Config = None,
    nats_url: Annotated[list[str] | None, typer.Option(help="NATS server of yours.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Show how the streams differ from the settings, or make them as the settings want.

    Starts the embedded NATS if no gateway runs. Ends with 1 if differences are left.
    """
    if plan and apply:
        fail("give --plan or --apply")
    urls = tuple(nats_url) if nats_url else None
    settings = settings_of(config, {"nats.urls": urls, "nats.data_dir": data_dir})
    work = provision_streams(settings, make=apply, accept_loss=accept_loss, say=typer.echo)
    try:
        done = foreground.run(work)
    except (GatewayError, StreamError, nats.errors.Error, OSError) as exc:
        fail(str(exc) or type(exc).__name__)
    else:
        raise typer.Exit(0 if done else 1)


@app.command()
def check_config(
    config: Config = None,
    connect: Annotated[
        bool, typer.Option("--connect", help="Try NATS, Redis and the JWKS URL as well.")
    ] = False,
) -> None:
    """Check the settings of a file and the environment, and show what is in force.

    Every file that is named is opened: keys, certificates, credentials.
    """
    settings = settings_of(config, {})
    typer.echo(hide(settings.model_dump_json(indent=2)))
    problems = checks.problems(settings)
    if connect:
        _configure_logs(settings, "critical")  # the problems are shown below
        problems += foreground.run(checks.connection_problems(settings))
    if problems:
        fail("\n".join(problems))


app.command()(event_commands.sink)
app.add_typer(event_commands.schema_app, name="schema")


def _operate(work: Coroutine[Any, Any, _T]) -> _T:
    """Talk to an ops port."""
    try:
        return foreground.run(work)
    except operate.OperateError as exc:
        fail(str(exc))


def _configure_logs(settings: Settings, level: str) -> None:
    """For a command: what goes wrong, on standard error."""
    configure_logs(level, settings.log.format, secrets=secrets_of(settings))
    # It warns of what nats-py answers whenever a server ends a TLS connection.
    logging.getLogger("asyncio").setLevel(logging.ERROR)


def _say(message: str) -> None:
    typer.echo(f"tidegate: {message}", err=True)


def _print_hint(gateway: Gateway) -> None:
    """How to connect a device, ready to paste."""
    program = f"{Path(sys.argv[0]).parent}/tidegate" if "/" in sys.argv[0] else "tidegate"
    with contextlib.suppress(ValueError):
        program = str(Path(program).resolve().relative_to(Path.cwd()))
    directory = gateway.data_dir
    option = f" --data-dir {shlex.quote(str(directory))}"
    data_dir = "" if directory == Path(".tidegate") else option
    message = '{"type":"battery.low","data":{"soc":7}}'
    typer.echo(
        f"\nTidegate serves devices on port {gateway.port}; "
        f"metrics: http://127.0.0.1:{gateway.ops_port}/metrics\n"
        f"Connect a device (paste into another terminal):\n\n"
        f"  echo '{message}' | {shlex.quote(program)} device veh-1 "
        f"--url ws://127.0.0.1:{gateway.port}/v1/device{data_dir}\n\n"
        f"Read back what is stored:\n\n"
        f"  {shlex.quote(program)} tail --since all --no-follow{data_dir}\n"
    )
