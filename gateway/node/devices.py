"""Composition of what devices meet: keys, schemas, credit, the gate and the port."""

import asyncio
import time
from dataclasses import dataclass
from functools import partial

from gateway.edge.device.context import DeviceContext
from gateway.edge.device.device import DeviceHandler
from gateway.edge.gate import DeviceGate
from gateway.edge.opening.anteroom import Anteroom
from gateway.node import limits
from gateway.node.admission import Admission, build_gate
from gateway.node.basis import Basis
from gateway.node.device_port import DevicePort
from gateway.node.presence.parts import Presence
from gateway.node.reloaded.certificate import Transport, transport_of
from gateway.node.reloaded.credential_keys import CredentialKeys
from gateway.node.reloaded.schemas_in_force import SchemaCheck, schemas_of
from gateway.node.room import find_room
from gateway.node.sessions import FairTurns, SessionNews, SessionOutlets
from gateway.node.storage import Storage
from gateway.process import Worker
from gateway.session.credit import CreditPool
from gateway.session.fairness import FairShare
from gateway.stream.lanes.watermark import ResumePoints


@dataclass(frozen=True, slots=True)
class Devices:
    """What devices meet."""

    keys: CredentialKeys
    schemas: SchemaCheck
    pool: CreditPool
    fairness: FairShare
    transport: Transport
    gate: DeviceGate
    connections_max: int
    port: DevicePort
    presence: Presence

    @property
    def workers(self) -> tuple[Worker, ...]:
        """What runs in the background."""
        return self.keys, self.port, FairTurns(self.fairness)


def build_devices(basis: Basis, storage: Storage, admission: Admission) -> Devices:
    settings = basis.settings
    keys = CredentialKeys(
        settings.credentials,
        data_dir=settings.nats.data_dir,
        wall=basis.wall,
        clock=basis.local,
        rng=basis.rng,
    )
    schemas = schemas_of(settings.events.file, basis.observers.stream.off_schema)
    session = settings.session
    pool = CreditPool(maximum=session.credit_max, budget_bytes=session.credit_budget_bytes)
    fairness = FairShare()
    room = find_room(settings.server)
    anteroom = Anteroom(places=room.anonymous, observer=basis.observers.edge)
    presence = Presence(basis, storage, admission)
    news = SessionNews(admission.records, storage.commands, *presence.followers)
    context = _device_context(basis, storage, admission, news, keys, schemas, pool, fairness)
    gate = build_gate(
        basis, admission, keys.verifier, anteroom=anteroom, connections_max=room.devices
    )
    transport = transport_of(settings.tls)
    port = DevicePort(
        basis,
        gate=gate,
        make_handler=partial(DeviceHandler, context),
        anteroom=anteroom,
        transport=transport,
        between=storage.publisher.look,
    )
    return Devices(keys, schemas, pool, fairness, transport, gate, room.devices, port, presence)


def _device_context(
    basis: Basis,
    storage: Storage,
    admission: Admission,
    news: SessionNews,
    keys: CredentialKeys,
    schemas: SchemaCheck,
    pool: CreditPool,
    fairness: FairShare,
) -> DeviceContext:
    settings, publisher, hold = basis.settings, storage.publisher, storage.hold
    return DeviceContext(
        limits=limits.session_limits(settings),
        verifier=keys.verifier,
        fleet=basis.fleet,
        memory=basis.memory,
        open_outlet=SessionOutlets(
            publisher, basis.traces.sample, schemas.marking, storage.chains
        ).open,
        on_answer=storage.commands.answered,
        observer=basis.observers.edge,
        rng=basis.rng,
        loop=asyncio.get_running_loop(),
        hello_timeout_s=settings.limits.hello_timeout_ms / 1000,
        credential_leeway_s=settings.credentials.leeway_ms / 1000,
        keepalive_ms=settings.keepalive.interval_ms,
        revocations=admission.revocations.facts,
        wall_clock=basis.wall,
        features=basis.traces.features,
        watch=news,
        pool=pool,
        fairness=fairness,
        credit_greedy=settings.session.credit_greedy,
        backlog=publisher.pending.share,
        held=lambda: hold.reason,
        schema_problem=schemas.rejecting,
        states=storage.states,
        resume_points=ResumePoints(
            publisher.standings,
            publisher.stored,
            credit_max=settings.session.credit_max,
            rejecting=schemas.rejecting is not None,
            clock=time.perf_counter,
            on_lookup=basis.observers.stream.looked_up,
        ),
    )
