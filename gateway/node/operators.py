"""Composition of what operators see and press: the status page, the gauges and the ops port."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from gateway.node.admission import Admission
from gateway.node.basis import Basis
from gateway.node.devices import Devices
from gateway.node.lifecycle import NodeState, StopOrders
from gateway.node.ops import gauges
from gateway.node.ops.access import OperatorAccess, OperatorGate, WorkerAccess
from gateway.node.ops.device_lookup import OperatorDevices
from gateway.node.ops.live_settings import LiveSettings
from gateway.node.ops.revocations import OperatorRevocations
from gateway.node.ops.snapshot import NodeSnapshot
from gateway.node.ops.status import AdmissionStatus, NodeStatus
from gateway.node.presence.reading import shown_presence
from gateway.node.storage import Storage
from gateway.ops.gateway_orders import GatewayOrders
from gateway.ops.listener import OpsListener, Pages
from gateway.ops.live_page import LivePage
from gateway.ops.protection import Protection
from gateway.process import OpsPort
from gateway.settings import Settings
from tidegate.wire.grammar import is_token


@dataclass(frozen=True, slots=True)
class Operators:
    """What operators see and press."""

    state: NodeState
    orders: StopOrders
    revocations: OperatorRevocations
    access: OperatorGate
    live: LiveSettings
    status: NodeStatus
    pages: tuple[LivePage, ...]
    """The live page; none in a worker, whose supervisor has the page of all."""
    snapshot: Callable[[], dict[str, Any]]
    """Takes what the live page shows."""
    port: OpsPort


def build_operators(
    basis: Basis,
    storage: Storage,
    admission: Admission,
    devices: Devices,
    read_settings: Callable[[], Settings] | None,
) -> Operators:
    """
    Args:
        basis: as everywhere.
        storage: the way to the stream.
        admission: who comes in, and how fast.
        devices: what devices meet.
        read_settings: reads the settings again; None if they have no source.

    Raises:
        BadTokenFile: the tokens of operators cannot be used.
        TlsError: the certificate of their port cannot be used.
    """
    settings = basis.settings
    access = _access(basis)
    state = NodeState()
    orders = StopOrders(basis.ending)
    revocations = OperatorRevocations(admission.revocations, admission.membership)
    status = _status(basis, storage, admission, devices, state)
    orders_of = GatewayOrders(
        drain=orders.drain,
        revocations=revocations,
        devices=OperatorDevices(
            admission.here,
            admission.membership,
            basis.node,
            partial(shown_presence, storage.backbone),
        ),
        steering=admission.steering,
        is_token=is_token,
    )
    snapshot = _snapshot(basis, status, storage, admission, devices)
    pages = (LivePage(snapshot.take),) if basis.place is None else ()
    listener = OpsListener(
        Pages(metrics=basis.metrics.exposition, not_ready=status.not_ready, status=status.page),
        protection=Protection(access.access, on_denied=basis.observers.ops.denied),
        routes=[
            *orders_of.routes(),
            *(route for page in pages for route in page.routes()),
        ],
        hosts=settings.ops.hosts,
        tls=access.tls,
    )
    port = OpsPort(
        listener,
        host=settings.ops.host,
        port=settings.ops.port,
        path=None if basis.place is None else basis.place.ops_socket,
    )
    register_gauges(basis, storage, admission, devices, status)
    access.register_gauges(basis.metrics)
    live = LiveSettings(settings, read_settings, admission.steering)
    return Operators(state, orders, revocations, access, live, status, pages, snapshot.take, port)


def _access(basis: Basis) -> OperatorGate:
    if basis.place is not None:
        return WorkerAccess()
    return OperatorAccess(basis.settings.ops, wall=basis.wall, clock=basis.local)


def _status(
    basis: Basis, storage: Storage, admission: Admission, devices: Devices, state: NodeState
) -> NodeStatus:
    return NodeStatus(
        node=basis.node,
        state=state,
        fleet=basis.fleet,
        gate=devices.gate,
        connections_max=devices.connections_max,
        admission=AdmissionStatus(
            membership=admission.membership,
            controller=admission.controller,
            desk=admission.desk,
            revocations=admission.revocations,
            steering=admission.steering,
            clock=basis.local,
        ),
        publisher=storage.publisher,
        backbone=storage.backbone,
        keys=devices.keys,
    )


def _snapshot(
    basis: Basis, status: NodeStatus, storage: Storage, admission: Admission, devices: Devices
) -> NodeSnapshot:
    observers, publisher, hold = basis.observers, storage.publisher, storage.hold

    def credit() -> int:
        return 0 if hold.reason else devices.pool.ceiling(len(basis.fleet), publisher.backlog)

    return NodeSnapshot(
        status,
        admission.controller,
        edge=observers.edge,
        stream=observers.stream,
        publisher=publisher,
        credit=credit,
        wall=basis.wall,
    )


def register_gauges(
    basis: Basis, storage: Storage, admission: Admission, devices: Devices, status: NodeStatus
) -> None:
    """Everything that the metrics page reads from the parts of this node."""
    metrics, fleet, gate = basis.metrics, basis.fleet, devices.gate
    gauges.register_process(metrics, status.not_ready)
    gauges.register_sessions(metrics, fleet, gate, devices.fairness)
    gauges.register_publishing(metrics, storage.publisher, storage.hold, devices.pool, fleet)
    gauges.register_credentials(metrics, devices.keys, admission.budget)
    gauges.register_admission(
        metrics,
        membership=admission.membership,
        controller=admission.controller,
        desk=admission.desk,
        gate=gate,
        clock=basis.local,
    )
    gauges.register_steering(metrics, admission.steering)
    admission.membership.register_gauges(metrics)
    devices.transport.register_gauges(metrics, "tidegate_certificate_expires_seconds")
