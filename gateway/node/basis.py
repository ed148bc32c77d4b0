"""What every part of a gateway is given."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.edge.fleet import Fleet
from gateway.edge.memory import DeviceMemory
from gateway.node.observers import Observers
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
    memory: DeviceMemory = field(default_factory=DeviceMemory)
    """Of refusals and closes, for the look-up of a device."""
