"""A device looked up: where it is, and why it is not in. Operators end its session here, too."""

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from gateway.admission.revocation import RevocationList
from gateway.admission.ticket import device_hash
from gateway.edge.memory import Event
from gateway.node.basis import Basis
from gateway.node.cluster.membership import Membership

REASON: Final = "disconnect"
"""Of the `goaway`, and of the close in the metrics."""
EVENTS_SHOWN_MAX: Final = 10
_RETRY_MS: Final = 1_000
_TOLD: Final = frozenset({"node", "session", "revoked_until", "refusals", "closes"})
"""What an answer of another node must have."""
_WHOIS: Final = "whois"
_DISCONNECT: Final = "disconnect"


class DevicesHere:
    """What this node knows of a device, and does with its session; for other nodes too."""

    def __init__(self, basis: Basis, revocations: RevocationList) -> None:
        """
        Args:
            basis: has the sessions of this node, its memory and its clocks.
            revocations: those that this node enforces.
        """
        self._fleet = basis.fleet
        self._memory = basis.memory
        self._local = basis.local
        self._wall = basis.wall
        self._revocations = revocations

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """What another node asks.

        Raises:
            KeyError: it is no question that this version knows.
        """
        tenant, device = str(question["tenant"]), str(question["device"])
        actions = {_WHOIS: self.describe, _DISCONNECT: self.disconnect}
        return actions[question["what"]](tenant, device)

    def describe(self, tenant: str, device: str) -> dict[str, Any]:
        """Session, revocation, last refusals and closes.

        A session without a welcome is shown too, with its state. `parked`: the device waits in the
        handshake for a slot that is near.
        """
        arrivals = self._memory.arrivals
        session = self._fleet.find(tenant, device) or arrivals.greeting(tenant, device)
        memory, holder = self._memory, device_hash(tenant, device)
        claims = memory.claims(tenant, device)
        revoked_until = max(
            (
                fact.until
                for fact in self._revocations.in_force()
                if (fact.tenant, fact.device) == (tenant, device)
            ),
            default=None,
        )
        return {
            "session": session.describe() if session is not None else None,
            "parked": arrivals.parked(tenant, device),
            "revoked_until": _iso(revoked_until) if revoked_until is not None else None,
            "refusals": [
                *self._shown(memory.refusals(holder), "error", verified=True),
                *self._shown(claims, "error", verified=False),
            ],
            "closes": self._shown(memory.closes(holder), "cause"),
        }

    def _shown(self, events: Iterable[Event], what: str, **more: bool) -> list[dict[str, Any]]:
        offset_s = self._wall() - self._local()
        return [
            {
                "at": _iso(at + offset_s),
                what: error,
                **({"reason": reason} if reason else {}),
                **({"retry_ms": round(seconds * 1000)} if seconds else {}),
                **more,
            }
            for at, error, reason, seconds in events
        ]

    def disconnect(self, tenant: str, device: str) -> dict[str, Any]:
        """End the session of a device. What it sent is settled and acknowledged first."""
        session = self._fleet.find(tenant, device)
        if session is not None:
            session.leave(REASON, _RETRY_MS, "", linger_s=-1)
        return {"disconnected": session is not None}


def _iso(moment: float) -> str:
    return dt.datetime.fromtimestamp(moment, dt.UTC).isoformat(timespec="milliseconds")


def merged(tenant: str, device: str, answers: list[dict[str, Any]], nodes: int) -> dict[str, Any]:
    """One answer of all nodes, the newest refusals and closes first. Pure.

    Args:
        tenant: whose device it is.
        device: its id.
        answers: one a node that answered, each with its `node`. A node of an older version says
            nothing of `parked`.
        nodes: how many there are.
    """
    holding = [answer for answer in answers if answer["session"] is not None]
    # During a takeover two nodes may have one: the higher fence is the newer.
    newest = max(holding, key=lambda answer: answer["session"]["fence"], default=None)

    def all_of(name: str) -> list[dict[str, Any]]:
        found = [{**each, "node": answer["node"]} for answer in answers for each in answer[name]]
        return sorted(found, key=lambda each: each["at"], reverse=True)[:EVENTS_SHOWN_MAX]

    revoked = [answer["revoked_until"] for answer in answers if answer["revoked_until"]]
    return {
        "tenant": tenant,
        "device": device,
        "node": newest["node"] if newest is not None else None,
        "session": newest["session"] if newest is not None else None,
        "parked": next((answer["node"] for answer in answers if answer.get("parked")), None),
        "revoked_until": max(revoked, default=None),
        "refusals": all_of("refusals"),
        "closes": all_of("closes"),
        "nodes": nodes,
        "nodes_answered": len(answers),
    }


class OperatorDevices:
    """`gateway.ops.gateway_orders.Devices`: the devices of all nodes of the fleet."""

    def __init__(
        self,
        here: DevicesHere,
        membership: Membership,
        node: str,
        presence: Callable[[str, str], Awaitable[dict[str, Any] | None]],
    ) -> None:
        """
        Args:
            here: what this node knows.
            membership: asks the other nodes.
            node: name of this process.
            presence: the newest presence fact of a tenant's device, as it is stored.
        """
        self._presence = presence
        self._here = here
        self._membership = membership
        self._node = node

    async def find(self, tenant: str, device: str) -> dict[str, Any]:
        """All that is known of a device: `merged` says what; and its newest presence fact."""
        others, presence = await asyncio.gather(
            self._membership.ask(_question(_WHOIS, tenant, device)),
            self._presence(tenant, device),
        )
        mine = {**self._here.describe(tenant, device), "node": self._node}
        told = [mine, *(answer for answer in others if answer.keys() >= _TOLD)]
        found = merged(tenant, device, told, self._membership.peers + 1)
        return {**found, "presence": presence}

    async def disconnect(self, tenant: str, device: str) -> bool:
        """End the session of a device, wherever it is. False if no node has one."""
        if self._here.disconnect(tenant, device)["disconnected"]:
            return True
        others = await self._membership.ask(_question(_DISCONNECT, tenant, device))
        return any(answer.get("disconnected") for answer in others)


def _question(what: str, tenant: str, device: str) -> dict[str, Any]:
    return {"what": what, "tenant": tenant, "device": device}
