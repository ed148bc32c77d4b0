"""What every part of a gateway is given."""

import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.edge.fleet import Fleet
from gateway.edge.memory import DeviceMemory
from gateway.node import limits
from gateway.node.ops.observers import Observers
from gateway.node.place import WorkerPlace
from gateway.node.traces import Traces, traces_of
from gateway.process import Ending
from gateway.settings import Settings
from gateway.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Basis:
    """What every part of a gateway is given."""

    settings: Settings
    node: str
    """Name of this process."""
    fleet: Fleet
    """The sessions of this node."""
    metrics: Metrics
    observers: Observers
    """Count what the rooms do, into `metrics`."""
    ending: Ending
    """Hears of parts that fail for good."""
    rng: random.Random
    wall: Callable[[], float]
    """Unix time as this machine has it, seconds."""
    local: Callable[[], float]
    """Local time, seconds: rates and waits are measured with it."""
    traces: Traces = field(default_factory=Traces)
    place: WorkerPlace | None = None
    """What a supervisor has given this process; None for a gateway of one process."""
    memory: DeviceMemory = field(default_factory=DeviceMemory)
    """Of refusals and closes, for the look-up of a device."""


def build_basis(settings: Settings, wall: Callable[[], float], place: WorkerPlace | None) -> Basis:
    """What the parts of a gateway with these settings are given.

    Raises:
        TelemetryError: the spans cannot be exported.
    """
    local, metrics, rng = time.monotonic, Metrics(), random.Random()
    node = secrets.token_hex(4)
    return Basis(
        settings=settings,
        node=node,
        fleet=Fleet(
            first_retry_ms_min=settings.session.first_retry_min_ms,
            refusals_per_s=limits.refusals_per_s(settings),
            clock=local,
        ),
        metrics=metrics,
        observers=Observers.of(metrics),
        ending=Ending(),
        rng=rng,
        wall=wall,
        local=local,
        traces=traces_of(settings.trace, node, metrics, rng=rng, clock=local),
        place=place,
    )
