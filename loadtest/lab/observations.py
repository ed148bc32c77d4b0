"""What a storm in the lab did, second by second. Pure: a watcher of the vehicles fills it."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

_SAMPLES_A_SECOND: Final = 2_000


def percentile(values: Sequence[float], percent: int) -> float:
    """A percentile of the values; 0 without values."""
    if len(values) < 2:
        return values[0] if values else 0.0
    return statistics.quantiles(values, n=100)[percent - 1]


@dataclass(slots=True)
class Sample:
    """The gateways' own figures at one moment; memory in bytes, CPU in seconds so far."""

    at: float
    rate_per_s: float
    limited_by: str
    waiting: int
    memory: int
    cpu_s: float


@dataclass(frozen=True, slots=True)
class MachineSample:
    """CPU time spent so far: by the whole machine, and by the run and all it started."""

    at: float
    busy_s: float
    ours_s: float


@dataclass(slots=True)
class Observations:
    """Times in seconds of `clock`."""

    clock: Callable[[], float]
    knocks: list[float] = field(default_factory=list)
    admissions: list[float] = field(default_factory=list)
    refusals: list[tuple[float, int]] = field(default_factory=list)
    """When, and the HTTP status."""
    waits: list[float] = field(default_factory=list)
    """From losing the connection to the welcome."""
    lateness: list[float] = field(default_factory=list)
    """For its slot, of each device that was admitted with a ticket."""
    dishonoured: int = 0
    failures: list[float] = field(default_factory=list)
    cuts: list[float] = field(default_factory=list)
    """Sessions that the device did not end."""
    acks: defaultdict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Latencies of acknowledgements, by second."""
    samples: list[Sample] = field(default_factory=list)
    machine: list[MachineSample] = field(default_factory=list)

    @property
    def unbelieved(self) -> int:
        """Refusals of a credential."""
        return sum(status == HTTPStatus.UNAUTHORIZED for _, status in self.refusals)

    def acked(self, latency_s: float) -> None:
        latencies = self.acks[int(self.clock())]
        if len(latencies) < _SAMPLES_A_SECOND:
            latencies.append(latency_s)

    def ack_p99_s(self, start: float, end: float) -> float:
        """Over whole seconds from `start` to `end`."""
        seconds = range(int(start), int(end) + 1)
        return percentile([value for second in seconds for value in self.acks.get(second, ())], 99)
