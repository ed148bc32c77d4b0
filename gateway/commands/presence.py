"""`tidegate presence`: which devices are online now, by tenant and group."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Final

import nats.errors
import typer

from gateway.commands import foreground
from gateway.commands.selecting import Device, Tenant, check_names
from gateway.commands.terminal import Config, DataDir, NatsUrl, fail, nats_settings_of
from gateway.nats_access import in_time, nats_address
from gateway.node.presence.reading import presence_of, truth_now
from gateway.session.presence import Fact, document_of
from gateway.settings import Settings
from gateway.stream.errors import StreamError
from gateway.stream.link.dialing import connect_once
from gateway.stream.reading.reader import OneConnection
from gateway.stream.server.roles import Role

app: Final = typer.Typer()

_WATCH_S: Final = 2.0


@app.command()
def presence(
    tenant: Tenant = None,
    group: Annotated[str | None, typer.Option(help="Only this group.")] = None,
    device: Device = None,
    names: Annotated[
        bool, typer.Option("--list", help="Each device that is online, one a line.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON a device.")] = False,
    watch: Annotated[bool, typer.Option(help="Repeat every two seconds, until Ctrl-C.")] = False,
    config: Config = None,
    nats_url: NatsUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Show which devices are online now, from the facts that are stored.

    With --device, one device of a tenant (`default` if none is named), online or not; the exit
    status is 1 if nothing is known of it.
    """
    check_names(tenant=tenant, group=group, device=device)
    settings = nats_settings_of(config, nats_url, data_dir)
    while True:
        facts = _read(settings, tenant, device)
        chosen = [fact for fact in facts if group in (None, fact.group)]
        for line in _shown(chosen, names=names, as_json=as_json, one=device is not None):
            typer.echo(line)
        if device is not None and not chosen:
            fail(f"nothing is known of {tenant or 'default'}/{device}")
        if not watch:
            return
        foreground.run(asyncio.sleep(_WATCH_S))


def _read(settings: Settings, tenant: str | None, device: str | None) -> list[Fact]:
    """The truth about the devices that are meant, ordered by their names."""

    async def read() -> list[Fact]:
        address = in_time(nats_address(settings, Role.OPERATORS))
        client = await connect_once(address, name="tidegate-presence")
        link = OneConnection(client)
        try:
            if device is not None:
                fact = await presence_of(link, tenant or "default", device)
                return [fact] if fact is not None else []
            return sorted(await truth_now(link, tenant=tenant or "*"), key=lambda each: each.key)
        finally:
            await client.discard()

    try:
        return foreground.run(read())
    except (nats.errors.Error, StreamError, OSError, TimeoutError) as exc:
        fail(f"NATS: {exc or type(exc).__name__}")


def _shown(facts: list[Fact], *, names: bool, as_json: bool, one: bool) -> Iterator[str]:
    if as_json:
        yield from (json.dumps(document_of(fact)) for fact in facts)
    elif one:
        yield from map(line_of, facts)
    elif names:
        yield from (line_of(fact) for fact in facts if fact.online)
    else:
        yield from table(facts)


def line_of(fact: Fact) -> str:
    """One device as a person reads it. Everything in it is of our grammar, or a number."""
    name = f"{fact.tenant}/{fact.device}"
    since = datetime.fromtimestamp(fact.time, UTC).isoformat(timespec="seconds")
    if fact.online:
        return f"{name} is online at node {fact.node} since {since}"
    return f"{name} is offline since {since}: {fact.cause}"


def table(facts: Iterable[Fact]) -> Iterator[str]:
    """How many devices of each tenant and group are online, and how many are known."""
    online: Counter[tuple[str, str]] = Counter()
    known: Counter[tuple[str, str]] = Counter()
    for fact in facts:
        place = fact.tenant, fact.group
        known[place] += 1
        online[place] += fact.online
    wide = max((len(each) for place in known for each in place), default=0)
    wide = max(wide, len("tenant"))
    yield f"{'tenant':<{wide}}  {'group':<{wide}}  {'online':>8}  {'offline':>8}"
    for place in sorted(known):
        tenant, group = place
        here = online[place]
        yield f"{tenant:<{wide}}  {group or '-':<{wide}}  {here:>8}  {known[place] - here:>8}"
    total = online.total()
    yield f"{'all':<{wide}}  {'':<{wide}}  {total:>8}  {known.total() - total:>8}"
