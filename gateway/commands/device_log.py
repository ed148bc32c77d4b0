"""`tidegate device-log`: one device's life in order: what is stored, and what nodes remember."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from urllib.parse import quote

import msgspec
import nats.errors
import typer

from gateway.commands import foreground, operate
from gateway.commands.ops_options import OPS_URL, CaFile, OpsUrl, TokenFile, client_of
from gateway.commands.presence import line_of
from gateway.commands.selecting import check_names
from gateway.commands.terminal import (
    Config,
    DataDir,
    NatsUrl,
    fail,
    moment_of,
    nats_settings_of,
    say,
)
from gateway.consumers.stored_now import stored_now
from gateway.events.dead_letters import Letter, letter_of
from gateway.nats_access import in_time, nats_address
from gateway.node.presence.reading import facts_of
from gateway.session.presence import Fact, Truth
from gateway.settings import Settings
from gateway.stream.errors import StreamError
from gateway.stream.link.dialing import connect_once
from gateway.stream.names import COMMANDS, DEADLETTERS
from gateway.stream.reading.reader import Link, OneConnection
from gateway.stream.server.roles import Role

app: Final = typer.Typer()

Entry = dict[str, Any]
"""`time` (RFC 3339), `what`, `from` (a stream, or `memory`), and what else is known."""


@app.command("device-log")
def device_log(
    device: Annotated[str, typer.Argument(help="Id of the device.")],
    tenant: Annotated[str, typer.Option(help="Tenant of the device.")] = "default",
    since: Annotated[
        str | None, typer.Option(help="Only from then: 10m, 2h, 1d ago, or an RFC 3339 time.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON each.")] = False,
    refusals: Annotated[
        bool, typer.Option(help="Ask the nodes for refusals, too: they are never stored.")
    ] = True,
    ops_url: OpsUrl = OPS_URL,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    config: Config = None,
    nats_url: NatsUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Show what happened to a device, in order: sessions, commands, rejects, refusals."""
    check_names(device=device, tenant=tenant)
    begin = moment_of(since)
    settings = nats_settings_of(config, nats_url, data_dir)
    facts, entries = _read(settings, tenant, device)
    entries += presence_entries(facts)
    if refusals:
        entries += _refusals(client_of(ops_url, token_file, ca_file), tenant, device)
    entries.sort(key=lambda entry: _moment(entry["time"]))
    for entry in entries:
        if begin is None or _moment(entry["time"]) >= begin:
            typer.echo(json.dumps(entry) if as_json else line(entry))
    if not as_json:
        truth = Truth()
        for fact in facts:
            truth.take(fact)
        now = truth.of((tenant, device))
        say(line_of(now) if now is not None else f"nothing is known of {tenant}/{device}")


def _read(settings: Settings, tenant: str, device: str) -> tuple[list[Fact], list[Entry]]:
    async def read() -> tuple[list[Fact], list[Entry]]:
        address = in_time(nats_address(settings, Role.OPERATORS))
        client = await connect_once(address, name="tidegate-device-log")
        try:
            link = OneConnection(client)
            facts = [fact for fact, _seq in await facts_of(link, tenant, device)]
            return facts, [
                *await _commands(link, tenant, device),
                *await _letters(link, tenant, device),
            ]
        finally:
            await client.discard()

    try:
        return foreground.run(read())
    except (nats.errors.Error, StreamError, OSError, TimeoutError) as exc:
        fail(f"NATS: {exc or type(exc).__name__}")


async def _commands(link: Link, tenant: str, device: str) -> list[Entry]:
    subject = f"commands.status.{tenant}.{device}.*"
    found = stored_now(link, COMMANDS, [subject], command_entry)
    return [entry async for entry in found]


async def _letters(link: Link, tenant: str, device: str) -> list[Entry]:
    subject = f"deadletters.{tenant}.{device}"
    found = stored_now(link, DEADLETTERS, [subject, f"{subject}.>"], letter_of)
    return [_letter_entry(letter) async for letter in found]


def presence_entries(facts: list[Fact]) -> Iterator[Entry]:
    """What presence facts say, one each."""
    begun: set[str] = set()
    for fact in sorted(facts, key=lambda each: (each.fence, not each.online)):
        again = fact.online and fact.session in begun
        if fact.online:
            begun.add(fact.session)
        yield {
            "time": _iso(fact.time),
            "what": "announced again" if again else fact.cause,
            "from": "PRESENCE",
            "node": fact.node,
            "session": fact.session,
            "fence": fact.fence,
        }


def command_entry(subject: str, _headers: bytes, data: bytes, _seq: int, stored_ns: int) -> Entry:
    """One step of a queued command."""
    try:
        status = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        status = {}
    known: Entry = {
        name: status[name] for name in ("type", "reason", "node", "data") if name in status
    }
    return {
        "time": _iso(stored_ns / 1e9),
        "what": f"command {status.get('status', '?')}",
        "from": COMMANDS,
        "id": subject.rpartition(".")[2],
        **known,
    }


def _letter_entry(letter: Letter) -> Entry:
    return {
        "time": _iso(letter.stored_at_ns / 1e9),
        "what": f"reject {letter.error}",
        "from": DEADLETTERS,
        "stage": letter.stage,
        "type": letter.type,
        "detail": letter.detail,
        "letter": letter.seq,
    }


def _refusals(client: operate.OpsClient, tenant: str, device: str) -> Iterator[Entry]:
    """What the nodes remember; nothing if they cannot be asked."""
    path = f"/devices/{quote(tenant, safe='')}/{quote(device, safe='')}"
    try:
        found = foreground.run(client.ask(path))
    except operate.OperateError as exc:
        say(f"refusals are not shown: {exc}")
        return
    for refusal in found["refusals"]:
        why = "/".join(part for part in (refusal["error"], refusal.get("reason")) if part)
        claimed: Entry = {} if refusal["verified"] else {"verified": False}
        yield {
            "time": refusal["at"],
            "what": f"refused {why}",
            "from": "memory",
            "node": refusal["node"],
            **claimed,
        }


def line(entry: Entry) -> str:
    """An entry as a person reads it. What devices and others sent is shown as JSON."""
    others = {name: value for name, value in entry.items() if name not in ("time", "what", "from")}
    more = " ".join(f"{name}={json.dumps(value)}" for name, value in others.items() if value != "")
    mark = "  (remembered by the node, not stored)" if entry["from"] == "memory" else ""
    return f"{entry['time']}  {json.dumps(entry['what'])[1:-1]:<22}  {more}{mark}".rstrip()


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
