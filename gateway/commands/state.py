"""`tidegate state`: what a device should be like, and what it last said."""

import asyncio
import json
import random
from collections.abc import Coroutine
from typing import Annotated, Any, Final, TypeVar

import nats.errors
import typer

from gateway import tasks
from gateway.commands import foreground
from gateway.commands.following import connected, leave_pipe
from gateway.commands.terminal import (
    Config,
    DataDir,
    NatsUrl,
    configure_command_logs,
    fail,
    nats_settings_of,
    say,
)
from gateway.errors import GatewayError
from gateway.nats_access import in_time, nats_address
from gateway.session.desired import DesiredState, Version, parse_version
from gateway.settings import Settings
from gateway.stream.errors import NotAState, StateConflict, StreamError
from gateway.stream.link.client import LinkClient
from gateway.stream.link.dialing import connect_once
from gateway.stream.server.roles import Role
from gateway.stream.states.follower import StateFollower
from gateway.stream.states.known import Key, KnownStates, subject_of
from gateway.stream.states.orders import (
    NO_VERSION,
    StateOf,
    encode_state,
    last_events,
    set_state,
    state_of,
)
from tidegate.wire.grammar import is_token

_CACHE_BYTES: Final = 1 << 20
_T = TypeVar("_T")

state_app: Final = typer.Typer(
    no_args_is_help=True,
    help="Set and show the desired state of a device. A connected device is told at once.",
)
app: Final = typer.Typer()
app.add_typer(state_app, name="state")

Device = Annotated[str, typer.Argument(help="Id of the device.")]
Tenant = Annotated[str, typer.Option(help="Tenant of the device.")]


@state_app.command("get")
def get(
    device: Device,
    tenant: Tenant = "default",
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
    config: Config = None,
    nats_url: NatsUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Show the desired state, and the last event of each type that the device sent."""
    key = _key(tenant, device)

    async def read(client: LinkClient) -> tuple[StateOf | None, list[Any]]:
        return await state_of(client, key), await last_events(client, key)

    state, events = _run(_with_client(nats_settings_of(config, nats_url, data_dir), read))
    if as_json:
        page = {
            "state": state._asdict() if state is not None else None,
            "events": [event._asdict() for event in events],
        }
        typer.echo(json.dumps(page))
        return
    if state is None:
        typer.echo(f"{tenant}/{device} has no desired state")
    else:
        typer.echo(f"desired {json.dumps(state.desired)}")
        typer.echo(f"  version {state.version}, set at {state.set_at}")
    for event in events:
        typer.echo(f"{event.time} {event.type} {json.dumps(event.data)}")


@state_app.command("set")
def set_(
    device: Device,
    desired: Annotated[str, typer.Argument(help="A JSON object: the whole state.")],
    tenant: Tenant = "default",
    if_version: Annotated[
        str | None,
        typer.Option(
            help=f"Only if this is the present version; `{NO_VERSION}`: if there is none."
        ),
    ] = None,
    config: Config = None,
    nats_url: NatsUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Set the desired state of a device, and print its version.

    The state replaces the one before. It cannot be taken away: set `{}`.
    """
    key, payload = _key(tenant, device), _payload(desired)

    async def write(client: LinkClient) -> str:
        return await set_state(client, key, payload, if_version=if_version)

    try:
        version = _run(_with_client(nats_settings_of(config, nats_url, data_dir), write))
    except StateConflict as exc:
        fail(f"not set: the present version is {exc.present}, not {if_version}")
    typer.echo(version)


@state_app.command("watch")
def watch(
    device: Device,
    tenant: Tenant = "default",
    config: Config = None,
    nats_url: NatsUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Print the desired state and every change of it, a line of JSON each, until interrupted."""
    key, settings = _key(tenant, device), nats_settings_of(config, nats_url, data_dir)
    configure_command_logs(settings, "error")
    try:
        _run(_watch(settings, key))
    except BrokenPipeError:
        leave_pipe()


def _key(tenant: str, device: str) -> Key:
    """Both go into a subject, where `*`, `>` and `.` would mean other devices."""
    for name, value in (("--tenant", tenant), ("DEVICE", device)):
        if not is_token(value):
            fail(f"{name} {value!r}: must match [A-Za-z0-9_-]{{1,64}}")
    return tenant, device


def _payload(text: str) -> bytes:
    try:
        return encode_state(text)
    except NotAState as exc:
        fail(str(exc))


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    try:
        return foreground.run(work)
    except StateConflict:
        raise
    except (GatewayError, StreamError, nats.errors.Error, TimeoutError, OSError) as exc:
        if isinstance(exc, BrokenPipeError):
            raise
        fail(str(exc) or "NATS does not answer")


async def _with_client(settings: Settings, work: Any) -> Any:
    """Do `work` with a connection of an operator."""
    address = in_time(nats_address(settings, Role.OPERATORS))
    client = await connect_once(address, name="tidegate-state")
    try:
        return await work(client)
    finally:
        await client.discard()


async def _watch(settings: Settings, key: Key) -> None:
    shown, again = DesiredState(""), asyncio.Event()

    def show(version: Version | None, desired: Any) -> None:
        if version is not None and shown.take(version):
            typer.echo(json.dumps({"version": str(version), "desired": desired}))

    known = KnownStates(_CACHE_BYTES)

    def made_anew() -> None:
        shown.enter(known.epoch)
        again.set()

    rng = random.Random()
    async with connected(settings, Role.OPERATORS, say, rng) as link:
        follower = StateFollower(
            link,
            known,
            subject=subject_of(key),
            on_set=lambda _key, version, desired: show(version, json.loads(desired)),
            on_anew=made_anew,
            rng=rng,
        )
        following = asyncio.create_task(follower.run(), name="state-following")
        try:
            await follower.begun.wait()
            while True:
                # What was set before the follower began.
                state = await state_of(await link.wait_up(), key)
                if state is not None:
                    show(parse_version(state.version), state.desired)
                await again.wait()
                again.clear()
        finally:
            await tasks.end(following)
