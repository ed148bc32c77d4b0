"""`tidegate whois`: where a device is, and why it is not in."""

import json
from collections.abc import Iterator
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from gateway.commands.ops_options import (
    OPS_URL,
    CaFile,
    OpsUrl,
    TokenFile,
    client_of,
    run_order,
)
from gateway.commands.terminal import say

app: Final = typer.Typer()

_BEFORE_WELCOME: Final = {
    "greeting": "it is admitted and has not said hello yet",
    "resuming": "its place in the stream is being looked up",
}


@app.command()
def whois(
    device: Annotated[str, typer.Argument(help="Id of the device.")],
    tenant: Annotated[str, typer.Option(help="Tenant of the device.")] = "default",
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
    ops_url: OpsUrl = OPS_URL,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
) -> None:
    """Show where a device is connected, and its last refusals and closes, on all nodes."""
    client = client_of(ops_url, token_file, ca_file)
    found = run_order(client.ask(f"/devices/{quote(tenant, safe='')}/{quote(device, safe='')}"))
    if as_json:
        typer.echo(json.dumps(found))
        return
    for line in lines(found):
        typer.echo(line)
    if found["nodes_answered"] < found["nodes"]:
        say(f"only {found['nodes_answered']} of {found['nodes']} nodes have answered")


def lines(found: dict[str, Any]) -> Iterator[str]:
    """What a person reads. Everything in it is of fixed words, names by our grammar, or numbers."""
    name, session = f"{found['tenant']}/{found['device']}", found["session"]
    if session is None:
        yield f"{name} is not connected"
    else:
        yield from _session_lines(name, found["node"], session)
    presence = found.get("presence")  # an older node does not tell it
    if presence is not None:
        state = "online" if presence["online"] else "offline"
        yield (
            f"  stored presence: {state} since {presence['time']}, {presence['cause']},"
            f" by node {presence['node']}"
        )
    if found["parked"]:
        yield f"  it waits in the handshake at node {found['parked']}, for a slot that is near"
    if found["revoked_until"]:
        yield f"  revoked until {found['revoked_until']}"
    for refusal in found["refusals"]:
        why = "/".join(part for part in (refusal["error"], refusal.get("reason")) if part)
        back = f", come back in {refusal['retry_ms']} ms" if "retry_ms" in refusal else ""
        claim = "" if refusal["verified"] else " (it claimed to be this device: not verified)"
        yield f"  {refusal['at']} refused: {why}{back}, by node {refusal['node']}{claim}"
    for close in found["closes"]:
        yield f"  {close['at']} closed: {close['cause']}, by node {close['node']}"


def _session_lines(name: str, node: str, session: dict[str, Any]) -> Iterator[str]:
    """`session` may be that of an older node, which tells less."""
    state = session["state"] + (", leaving" if session["leaving"] else "")
    named = f", session {session['id']}" if session.get("id") else ""
    yield f"{name} is connected to node {node} ({state}){named}"
    if session["state"] in _BEFORE_WELCOME:
        yield f"  {_BEFORE_WELCOME[session['state']]}"
        return
    last = ", ".join(
        f"last {what} {session[key]:g} s ago" if session.get(key) is not None else f"no {what} yet"
        for what, key in (("message", "last_message_s_ago"), ("ack", "last_ack_s_ago"))
    )
    yield (
        f"  acked up to {session['acked']}, credit {session['credit']},"
        f" {session['unsettled']} not settled yet, {last}"
    )
    if session["greedy"]:
        yield "  it sends far more than the others do, so its credit is small"
