"""The gauges of a gateway: what the metrics page reads from its parts at each scrape.

A part that only one thing is asked of is registered here; the backbone, the fleet and the
certificate register their own.
"""

import platform
from collections.abc import Callable
from importlib.metadata import version as package_version

from gateway.admission.budget import VerificationBudget
from gateway.admission.controller import CEILING, SIGNALS, RateController
from gateway.admission.desk import AdmissionDesk
from gateway.edge.arrivals import Waiting
from gateway.edge.device.hold import StreamHold
from gateway.edge.fleet import Fleet
from gateway.edge.gate import DeviceGate
from gateway.node.cluster.membership import Membership
from gateway.node.ops.steering import Steering
from gateway.node.reloaded.credential_keys import CredentialKeys
from gateway.session.credit import CreditPool
from gateway.session.fairness import FairShare
from gateway.stream.lanes.publisher import Publisher
from gateway.telemetry.metrics import Metrics


def register_process(metrics: Metrics, not_ready: Callable[[], str | None]) -> None:
    metrics.info(
        "tidegate_build_info",
        "1, with the version of the gateway and of Python in the labels.",
        {"version": package_version("tidegate-gateway"), "python": platform.python_version()},
    )
    metrics.gauge(
        "tidegate_ready",
        "1 if devices should be sent here.",
        lambda: int(not_ready() is None),
    )


def register_sessions(
    metrics: Metrics, fleet: Fleet, gate: DeviceGate, fairness: FairShare
) -> None:
    gauge = metrics.gauge
    gauge("tidegate_devices", "Devices with a session.", fleet.__len__)
    gauge("tidegate_connections", "Connections, admitted or on their way.", gate.__len__)
    gauge(
        "tidegate_first_retry_seconds",
        "Over how long the fleet spreads its first knock.",
        lambda: fleet.first_retry_ms / 1000,
    )
    gauge(
        "tidegate_greedy_devices",
        "Devices that send far more than the others and have a small window for it.",
        lambda: fairness.greedy,
    )


def register_publishing(
    metrics: Metrics,
    publisher: Publisher,
    hold: StreamHold,
    pool: CreditPool,
    fleet: Fleet,
) -> None:
    gauge = metrics.gauge
    gauge(
        "tidegate_pending_messages",
        "Messages received and not yet settled.",
        lambda: publisher.pending_messages,
    )
    gauge("tidegate_pending_bytes", "Bytes of those messages.", lambda: publisher.pending_bytes)
    gauge(
        "tidegate_credit_ceiling",
        "Messages one device may have outstanding now.",
        lambda: pool.ceiling(len(fleet), publisher.backlog),
    )
    gauge(
        "tidegate_held",
        "1 while devices have no credit because the stream stores nothing.",
        lambda: int(bool(hold.reason)),
    )


def register_credentials(
    metrics: Metrics, keys: CredentialKeys, budget: VerificationBudget
) -> None:
    verifier = keys.verifier
    metrics.gauge(
        "tidegate_credential_keys_age_seconds",
        "Since the keys of credentials were last read.",
        lambda: keys.age_s,
    )
    metrics.counted(
        "tidegate_credential_verifications_total",
        "Signatures checked.",
        lambda: verifier.verifications,
    )
    metrics.counted(
        "tidegate_credential_cache_hits_total",
        "Credentials recognised without checking their signature.",
        lambda: verifier.cache_hits,
    )
    metrics.counted(
        "tidegate_unverified_credential_seconds_total",
        "CPU time spent on signatures nobody had verified before.",
        lambda: budget.spent_s,
    )


def register_admission(
    metrics: Metrics,
    *,
    membership: Membership,
    controller: RateController,
    desk: AdmissionDesk[Waiting],
    gate: DeviceGate,
    clock: Callable[[], float],
) -> None:
    gauge = metrics.gauge
    gauge(
        "tidegate_admission_rate_per_second",
        "R: admissions a second this node reckons with.",
        lambda: membership.calendar.rate_per_s,
    )
    gauge(
        "tidegate_admission_proposal_per_second",
        "R as this node's health would have it.",
        lambda: controller.rate_per_s,
    )
    metrics.choice(
        "tidegate_admission_limited_by",
        "1 for what holds R down.",
        "signal",
        (CEILING, *SIGNALS),
        lambda: controller.limited_by,
    )
    gauge(
        "tidegate_admission_lead_seconds",
        "Until the next free slot: the predicted time to drain what waits.",
        lambda: desk.lead_s(clock()),
    )
    gauge("tidegate_waiting", "Knocks waiting in the handshake.", lambda: desk.parked)
    gauge(
        "tidegate_admission_held",
        "1 while admission is stopped because the stream stores nothing.",
        lambda: int(desk.held),
    )
    gauge(
        "tidegate_knock_herd_index",
        "Peak over mean of the last minute's knocks.",
        lambda: gate.herd.value(clock()),
    )


def register_steering(metrics: Metrics, steering: Steering) -> None:
    metrics.gauge(
        "tidegate_admission_rate_ceiling_per_second",
        "The most that R can be now.",
        lambda: steering.in_force.rate_per_s,
    )
    metrics.gauge(
        "tidegate_steered_settings",
        "Settings that operators have changed for a time.",
        lambda: len(steering.status()),
    )
