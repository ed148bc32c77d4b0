"""The status page of a gateway: what operators ask first, as one JSON document."""

from collections.abc import Callable
from importlib.metadata import version as package_version
from typing import Any

from gateway.admission.controller import RateController
from gateway.admission.desk import AdmissionDesk
from gateway.edge.arrivals import Waiting
from gateway.edge.fleet import Fleet
from gateway.edge.gate import DeviceGate
from gateway.node.cluster.membership import Membership
from gateway.node.cluster.revocations import Revocations
from gateway.node.lifecycle import NodeState
from gateway.node.ops.steering import Steering
from gateway.node.reloaded.credential_keys import CredentialKeys
from gateway.node.stream.backbone import Backbone
from gateway.stream.lanes.publisher import Publisher


class AdmissionStatus:
    """The part of the page that says who is admitted, and how fast."""

    def __init__(
        self,
        *,
        membership: Membership,
        controller: RateController,
        desk: AdmissionDesk[Waiting],
        revocations: Revocations,
        steering: Steering,
        clock: Callable[[], float],
    ) -> None:
        """
        Args:
            membership: its calendar has R, and it says what the fleet is like.
            controller: says what limits R.
            desk: says who waits.
            revocations: of this node.
            steering: what operators have changed.
            clock: local time, seconds.
        """
        self._membership = membership
        self._controller = controller
        self._desk = desk
        self._revocations = revocations
        self._steering = steering
        self._clock = clock

    def page(self) -> dict[str, Any]:
        desk = self._desk
        return {
            "rate_per_s": round(self._membership.calendar.rate_per_s, 1),
            "rate_ceiling_per_s": self._steering.in_force.rate_per_s,
            "rate_floor_per_s": self._steering.in_force.rate_floor_per_s,
            "burst": self._steering.in_force.burst,
            "steered": self._steering.status(),
            "limited_by": self._controller.limited_by,
            "held": desk.held,
            "lead_s": round(desk.lead_s(self._clock()), 3),
            "parked": desk.parked,
            "revoked": len(self._revocations.facts.in_force()),
            "revocations_pending": self._membership.pending,
            **self._membership.status(),
        }


class NodeStatus:
    """What the pages of a gateway say of it."""

    def __init__(
        self,
        *,
        node: str,
        state: NodeState,
        fleet: Fleet,
        gate: DeviceGate,
        connections_max: int,
        admission: AdmissionStatus,
        publisher: Publisher,
        backbone: Backbone,
        keys: CredentialKeys,
    ) -> None:
        """
        Args:
            node: name of this process.
            state: where it is in its life.
            fleet: its sessions.
            gate: its connections.
            connections_max: devices that it has descriptors for.
            admission: the part of the page about admission.
            publisher: says what is not yet settled.
            backbone: the part of the page about the stream.
            keys: says whether the development key is believed.
        """
        self._version = package_version("tidegate-gateway")  # read from a file
        self._node = node
        self._state = state
        self._fleet = fleet
        self._gate = gate
        self._connections_max = connections_max
        self._admission = admission
        self._publisher = publisher
        self._backbone = backbone
        self._keys = keys

    def not_ready(self) -> str | None:
        """Why no device should be sent here, or None."""
        return self._state.not_ready(self._backbone.trouble)

    def page(self) -> dict[str, Any]:
        publisher = self._publisher
        return {
            "version": self._version,
            "node": self._node,
            "state": self._state.phase.value,
            "not_ready": self.not_ready(),
            "uptime_s": round(self._state.uptime_s, 1),
            "devices": len(self._fleet),
            "connections": len(self._gate),
            "connections_max": self._connections_max,
            "first_retry_ms": self._fleet.first_retry_ms,
            "admission": self._admission.page(),
            "pending": {
                "messages": publisher.pending_messages,
                "bytes": publisher.pending_bytes,
            },
            "stream": self._backbone.status(),
            "credentials": {
                "cached": len(self._keys.verifier),
                "development_key": self._keys.development,
            },
        }
