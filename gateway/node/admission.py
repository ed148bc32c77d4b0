"""Composition of admission: fleet time, revocations, tickets, the calendar, the desk and the gate.

Measurements use local time. Fleet time is used only for what is promised to other nodes.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.admission.budget import VerificationBudget
from gateway.admission.clock import FleetClock
from gateway.admission.controller import RateController
from gateway.admission.credential import CredentialVerifier
from gateway.admission.desk import AdmissionDesk
from gateway.admission.keyring import Keyring
from gateway.admission.office import NodeTicketOffice
from gateway.admission.revocation import RevocationList
from gateway.cluster.fences import Fences
from gateway.cluster.overrides import Overrides
from gateway.edge.arrivals import Waiting
from gateway.edge.gate import DeviceGate, GateContext
from gateway.edge.opening.anteroom import Anteroom
from gateway.node import limits
from gateway.node.basis import Basis
from gateway.node.board import WorkerFences
from gateway.node.cluster.membership import LoneNode, Membership
from gateway.node.cluster.node import FleetNode, Member
from gateway.node.cluster.revocations import REVOCATIONS_FILE, Revocations, earlier_of
from gateway.node.cluster.roll import Roll
from gateway.node.cluster.sessions import FleetSessions
from gateway.node.cluster.ticket_secrets import KeptSecrets, TicketRotation
from gateway.node.hook import Hook
from gateway.node.ops.device_lookup import DevicesHere
from gateway.node.ops.steering import Steering
from gateway.node.sessions import SessionRecords


@dataclass(frozen=True, slots=True)
class Admission:
    """What decides who is admitted, apart from the gate."""

    revocations: Revocations
    keyring: Keyring
    office: NodeTicketOffice
    membership: Membership
    here: DevicesHere
    slots_changed: Hook[[]]
    """R has changed, or there are new slots."""
    clock: FleetClock
    fences: Fences
    sessions: FleetSessions
    roll: Roll
    records: SessionRecords
    controller: RateController
    desk: AdmissionDesk[Waiting]
    steering: Steering
    budget: VerificationBudget


def build_admission(basis: Basis) -> Admission:
    """
    Raises:
        OSError: a file of ticket secrets can be neither read nor made.
    """
    settings, admission = basis.settings, basis.settings.admission
    clock = FleetClock(basis.wall, basis.local)
    fences = _fences(basis, clock)
    sessions = FleetSessions(basis.fleet, fences)
    revocations = _revocations(basis, clock)
    kept = _kept_secrets(basis)
    keyring = kept.load([secret.get_secret_value().encode() for secret in admission.ticket_secrets])
    ahead_s_max = limits.ticket_ahead_s_max(settings)
    office = NodeTicketOffice(keyring.secrets, clock=clock, ahead_max_s=ahead_s_max)
    here = DevicesHere(basis, revocations.facts)
    slots_changed, elsewhere, overrides = Hook[[]](), Hook[[Sequence[bytes]]](), Overrides(clock)
    roll = Roll(basis.node, silence_s=settings.cluster.node_timeout_ms / 1000, clock=clock)
    member = Member(
        node=basis.node,
        rate_per_s=admission.rate_per_s,
        clock=clock,
        local=basis.local,
        keyring=keyring,
        revocations=revocations,
        overrides=overrides,
        sessions=sessions,
        fence_source=basis.node if basis.place is None else basis.place.gateway,
        answer=here.answer,
        on_calendar=slots_changed,
        on_admitted=elsewhere,
        on_secrets=TicketRotation(keyring, office, kept).rotate,
        roll=roll,
        rng=basis.rng,
    )
    membership = build_membership(basis, member)
    desk = _desk(basis, membership, office, elsewhere)
    controller = RateController(limits.controller_settings(settings))
    return Admission(
        revocations=revocations,
        keyring=keyring,
        office=office,
        membership=membership,
        here=here,
        slots_changed=slots_changed,
        clock=clock,
        fences=fences,
        sessions=sessions,
        roll=roll,
        records=SessionRecords(fences, membership),
        controller=controller,
        desk=desk,
        steering=_steering(basis, overrides, controller, desk, membership, clock),
        budget=VerificationBudget(share=admission.verification_share, now=basis.local()),
    )


def _fences(basis: Basis, clock: FleetClock) -> Fences:
    place = basis.place
    return Fences(clock, None if place is None else WorkerFences(place.board, place.number - 1))


def _kept_secrets(basis: Basis) -> KeptSecrets:
    write = None if basis.place is None else basis.place.write_soon
    return KeptSecrets(basis.settings.nats.data_dir, write)


def _revocations(basis: Basis, clock: FleetClock) -> Revocations:
    return Revocations(
        RevocationList(earlier_of(basis.wall, clock)),
        file=basis.settings.nats.data_dir / REVOCATIONS_FILE,
        sessions=basis.fleet,
        write=None if basis.place is None else basis.place.write,
    )


def _steering(
    basis: Basis,
    overrides: Overrides,
    controller: RateController,
    desk: AdmissionDesk[Waiting],
    membership: Membership,
    fleet_time: FleetClock,
) -> Steering:
    return Steering(
        basis.settings,
        overrides,
        controller=controller,
        desk=desk,
        membership=membership,
        clock=basis.local,
        fleet_time=fleet_time,
    )


def _desk(
    basis: Basis,
    membership: Membership,
    office: NodeTicketOffice,
    admitted_elsewhere: Hook[[Sequence[bytes]]],
) -> AdmissionDesk[Waiting]:
    desk: AdmissionDesk[Waiting] = AdmissionDesk(
        limits.desk_settings(basis.settings),
        calendar=membership.calendar,
        office=office,
        observer=basis.observers.admission,
        rng=basis.rng,
        now=basis.local(),
    )
    admitted_elsewhere.add(lambda holders: desk.admitted_elsewhere(holders, basis.local()))
    return desk


def build_membership(basis: Basis, member: Member) -> Membership:
    """A member of the fleet that the settings name, or a node without one."""
    settings = basis.settings
    calendar = limits.calendar_settings(settings)
    if settings.cluster.redis_url is None:
        return LoneNode(calendar, rate_per_s=member.rate_per_s, now=basis.local())
    return FleetNode(settings.cluster, calendar, member)


def build_gate(
    basis: Basis,
    admission: Admission,
    verifier: CredentialVerifier,
    *,
    anteroom: Anteroom,
    connections_max: int,
) -> DeviceGate:
    """
    Args:
        basis: as everywhere.
        admission: what decides.
        verifier: of credentials.
        anteroom: holds connections that have not said which device they are.
        connections_max: devices this node has descriptors for.
    """
    settings = basis.settings
    return DeviceGate(
        GateContext(
            verifier=verifier,
            revocations=admission.revocations.facts,
            fleet=basis.fleet,
            memory=basis.memory,
            desk=admission.desk,
            office=admission.office,
            budget=admission.budget,
            device_knocks=limits.device_limiter(settings),
            address_knocks=limits.address_limiter(settings),
            connections_max=connections_max,
            anteroom=anteroom,
            known_within_s=settings.admission.resume_within_ms / 1000,
            clock=basis.local,
            rng=basis.rng,
            loop=asyncio.get_running_loop(),
        )
    )
