"""`tidegate command`: asks a device now, or queues a command until the device is there."""

import json
import os
import secrets
import time
from typing import Annotated, Any, Final, NoReturn

import nats.errors
import typer
from msgspec import UNSET, Raw

from gateway.commands import foreground
from gateway.commands.outcomes import (
    CLIENT_NAME,
    STATUSES,
    TRACE_VARIABLE,
    WAIT,
    print_line,
    status_of,
)
from gateway.commands.selecting import check_names
from gateway.commands.terminal import (
    Config,
    DataDir,
    NatsUrl,
    fail,
    nats_settings_of,
    say,
    seconds_of,
)
from gateway.commands.values import check_json
from gateway.nats_access import in_time, nats_address
from gateway.settings import Settings
from gateway.stream.errors import StreamError
from gateway.stream.link.dialing import connect_once
from gateway.stream.queue import asking
from gateway.stream.queue.facts import DeviceKey, Entry, Fact, rfc3339
from gateway.stream.queue.requests import NO_ANSWER, NO_DATA
from gateway.stream.queue.status import NOT_UNDERSTOOD
from gateway.stream.server.roles import Role
from tidegate.wire.grammar import is_token
from tidegate.wire.traceparent import read_traceparent

app: Final = typer.Typer(add_completion=False)

_TTL: Final = "1h"

Ask = tuple[str, bytes]
"""Type and data."""

_Ttl = Annotated[
    str | None,
    typer.Option(help=f"How long it stays queued, like 10m or 1d; {_TTL} by default."),
]
_Wait = Annotated[
    str | None,
    typer.Option(
        help=f"How long to wait for the outcome; {WAIT} by default, not at all with --queue."
    ),
]
_Cancel = Annotated[
    str | None, typer.Option(metavar="ID", help="Cancel the queued command with this id.")
]
_Status = Annotated[
    str | None, typer.Option(metavar="ID", help="Show the outcome of the command with this id.")
]


@app.command()
def command(
    device: Annotated[str, typer.Argument(help="Id of the device.")],
    type_: Annotated[
        str | None, typer.Argument(metavar="TYPE", help="Type of the command, like door.lock.")
    ] = None,
    data: Annotated[str, typer.Argument(metavar="JSON", help="Data of the command.")] = "null",
    queue: Annotated[
        bool,
        typer.Option("--queue", help="Store it until the device is connected, and print its id."),
    ] = False,
    ttl: _Ttl = None,
    wait: _Wait = None,
    cancel: _Cancel = None,
    status: _Status = None,
    list_: Annotated[
        bool, typer.Option("--list", help="Show the queued commands of the device.")
    ] = False,
    tenant: Annotated[str, typer.Option(help="Tenant of the device.")] = "default",
    config: Config = None,
    nats_url: NatsUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Send a command to a device, and print each answer as a JSON line.

    The exit status is 0 if it is done, 3 if the device is offline, 4 if there is no answer in
    time, 5 if it was not understood, 6 if it failed, 7 if it expired, 8 if the outcome is unknown,
    9 if the device does not read now, and 1 for anything that is no answer. The device is told the
    trace that TRACEPARENT in the environment names, if that is sampled.
    """
    check_names(tenant=tenant, device=device)
    key = (tenant, device)
    settings = nats_settings_of(config, nats_url, data_dir)
    orders = [given for given in (cancel, status, list_ or None, type_) if given is not None]
    if len(orders) != 1:
        fail("give a TYPE, or one of --cancel, --status and --list")
    for name in (cancel, status):
        if name is not None and not is_token(name):
            fail("an id must match [A-Za-z0-9_-]{1,64}")
    wait_s = None if wait is None else seconds_of(wait, "--wait")
    if cancel is not None:
        _run(_cancel(settings, key, cancel))
    elif status is not None:
        _run(_show(settings, key, status, wait_s or 0))
    elif list_:
        _run(_list(settings, key))
    else:
        assert type_ is not None
        check_names(message_type=type_)
        ask = type_, _json_of(data)
        if queue or ttl is not None:
            ttl_s = seconds_of(ttl if ttl is not None else _TTL, "--ttl")
            _run(_queue(settings, key, ask, ttl_s, wait_s or 0))
        else:
            _run(_request(settings, key, ask, wait_s or seconds_of(WAIT, "--wait")))


def _json_of(text: str) -> bytes:
    try:
        check_json(text)
    except (ValueError, RecursionError) as exc:
        fail(f"JSON {text[:64]!r}: {exc}")
    return text.encode()


def _trace() -> str:
    """The sampled trace of the caller; empty if there is none."""
    parent = read_traceparent(os.environ.get(TRACE_VARIABLE, ""))
    return str(parent) if parent is not None and parent.sampled else ""


def _run(work: Any) -> NoReturn:
    """Run it, and end with the status of its outcome.

    Raises:
        typer.Exit: always.
    """
    try:
        outcome = foreground.run(work)
    except (StreamError, nats.errors.Error, TimeoutError, OSError) as exc:
        fail(f"NATS: {exc or type(exc).__name__}")
    raise typer.Exit(status_of(outcome))


async def _request(settings: Settings, key: DeviceKey, ask: Ask, wait_s: float) -> str:
    client = await connect_once(in_time(nats_address(settings, Role.OPERATORS)), name=CLIENT_NAME)
    try:
        told = await asking.request(client, key, *ask, wait_s, _trace())
    finally:
        await client.discard()
    print_line(outcome=told.outcome, id=told.id, data=told.data, detail=told.detail)
    return told.outcome


class _Queue:
    """The queue over a connection of this command."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def __aenter__(self) -> asking.CommandQueue:
        address = in_time(nats_address(self._settings, Role.OPERATORS))
        self._client = await connect_once(address, name=CLIENT_NAME)
        queue = asking.CommandQueue()
        await queue.on_up(self._client)
        return queue

    async def __aexit__(self, *_failure: object) -> None:
        await self._client.discard()


async def _queue(settings: Settings, key: DeviceKey, ask: Ask, ttl_s: float, wait_s: float) -> str:
    message_type, data = ask
    expires = rfc3339(time.time() + ttl_s)
    entry = Entry(secrets.token_hex(8), message_type, expires, Raw(data), _trace())
    async with _Queue(settings) as queue:
        await queue.put(key, entry)
        print_line(id=entry.id, status="queued", expires=entry.expires)
        if not wait_s:
            return "queued"
        return await _follow(queue, key, entry.id, wait_s)


async def _follow(
    queue: asking.CommandQueue, key: DeviceKey, command_id: str, wait_s: float
) -> str:
    status = NO_ANSWER
    async for fact in queue.facts(key, command_id, wait_s):
        if fact.status != "queued":
            _print_fact(command_id, fact)
        status = NO_ANSWER if fact.status in ("queued", "sent", "delivered") else fact.status
        if fact.reason == NOT_UNDERSTOOD:
            status = fact.reason
    if status == NO_ANSWER:
        say("there is no outcome yet; --status shows it later")
    return status


async def _show(settings: Settings, key: DeviceKey, command_id: str, wait_s: float) -> str:
    status = ""
    async with _Queue(settings) as queue:
        async for fact in queue.facts(key, command_id, wait_s):
            _print_fact(command_id, fact)
            status = fact.status
    if not status:
        fail(f"no fact of command {command_id} is known for this device")
    return status if status in STATUSES else NO_ANSWER


async def _cancel(settings: Settings, key: DeviceKey, command_id: str) -> str:
    async with _Queue(settings) as queue:
        status = await queue.cancel(key, command_id)
    if status is not None:
        fail(f"{command_id} cannot be cancelled any more: it is {status}")
    print_line(id=command_id, status="failed", reason="cancelled")
    return "done"


async def _list(settings: Settings, key: DeviceKey) -> str:
    async with _Queue(settings) as queue:
        async for each in queue.waiting(key):
            entry = each.entry
            print_line(
                id=entry.id,
                type=entry.type,
                data=json.loads(bytes(entry.data)),
                status=each.status,
                expires=entry.expires,
            )
    return "done"


def _print_fact(command_id: str, fact: Fact) -> None:
    data = NO_DATA if fact.data is UNSET else json.loads(bytes(fact.data))
    print_line(id=command_id, status=fact.status, time=fact.time, reason=fact.reason, data=data)
