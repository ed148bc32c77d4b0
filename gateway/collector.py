"""Keeps Python's cyclic collector from stalling the event loop, and garbage from piling up.

CPython's collector visits the objects made since its last pass and, now and then, all objects
(`gc`, "generations"). With a whole fleet connected, a pass over all objects stalls the event loop
for about 0.1 s. So:

- The objects of the start (modules, mostly) are set aside once and never visited (`gc.freeze`).
- A pass over young objects is small, about a millisecond. An object that survives one is not
  visited again, until memory has grown by more than the connections explain.
- Then there may be garbage, and a pass over all objects made since the start finds it. So garbage
  can never exceed a quarter of the live memory plus a fixed amount, and plus what connections had
  that have ended since the last pass: their memory is not returned to the system at once. A pass in
  the second in which thousands of connections end would be the longest stall of that second.
- While there are few objects, a pass over all of them is cheap, and one is made each minute.

Connections leave no cycles (`tests/test_leftovers.py`), so a busy node should not need a pass that
memory has caused. Such a pass is logged.
"""

import gc
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from gateway.beats import beat

_log = structlog.get_logger(__name__)

_YOUNG: Final = 2_000
"""Objects made, less those freed, before a pass over young objects: about a millisecond."""
_NEVER: Final = 2**31 - 1
_GROWTH: Final = 0.25
"""Memory may grow by this share of what was left after the last pass over all objects."""
_LOOK_EVERY_S: Final = 1.0
_CHEAP_S: Final = 0.01
_EACH_S: Final = 20e-6
"""About how much a connection adds to a pass over all objects."""
_CHEAP_EVERY_S: Final = 60.0
_MIB: Final = 1_048_576
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure of memory that garbage adds to."""

    read: Callable[[], int]
    each: int
    """How much of it one connection explains."""
    slack: int
    """Growth that is never taken for garbage."""


def resident_bytes() -> int:
    """Resident memory of this process; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
    except OSError:
        return 0
    return pages * _PAGE_BYTES


def measures(*, tls: bool) -> tuple[Measure, ...]:
    """The measures that a gateway watches.

    Args:
        tls: whether its connections have TLS, which costs more memory each.
    """
    # A session, with all that is remembered of its device, is 50 blocks. A large buffer is not one.
    return (
        Measure(sys.getallocatedblocks, each=100, slack=250_000),
        Measure(resident_bytes, each=49_152 if tls else 12_288, slack=64 * _MIB),
    )


class CalmCollector:
    """Owns the collector's settings for as long as it is started."""

    def __init__(
        self,
        watched: Sequence[Measure],
        *,
        connections: Callable[[], int],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """
        Args:
            watched: measures of memory.
            connections: how many there are now.
            clock: seconds, to time passes with.
        """
        self._watched = tuple(watched)
        self._connections = connections
        self._clock = clock
        self._threshold = gc.get_threshold()
        self._started = False
        self._after: list[int] = []
        self._connections_then = 0
        self._connections_most = 0
        """The most at any look since the last pass."""
        self._connections_before = 0
        self._took_s = 0.0
        self._passed_at = 0.0

    def start(self) -> None:
        """Take over the collector. Call it when the process has made what it starts with."""
        self._started = True
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG, _NEVER, _NEVER)
        self.collect_all()

    def stop(self) -> None:
        """Give the collector its old settings back, if this was started."""
        if not self._started:
            return
        self._started = False
        gc.set_threshold(*self._threshold)
        gc.unfreeze()

    def collect_all(self) -> int:
        """Visit all objects that were made since the start.

        Returns:
            Objects that were unreachable.
        """
        began = self._clock()
        found = gc.collect()
        self._passed_at = self._clock()
        self._took_s = self._passed_at - began
        self._after = [measure.read() for measure in self._watched]
        self._connections_then = self._connections_most = self._connections()
        return found

    def look(self) -> None:
        """Make a pass over all objects if one is due."""
        connections, before = self._connections(), self._connections_before
        self._connections_before = connections
        self._connections_most = max(self._connections_most, connections)
        more = self._connections_most - self._connections_then
        for measure, after in zip(self._watched, self._after, strict=True):
            grown = measure.read() - after - more * measure.each
            if grown > max(measure.slack, after * _GROWTH):
                found = self.collect_all()
                _log.warning(
                    "memory_grew", objects_unreachable=found, seconds=round(self._took_s, 3)
                )
                return
        # Those that have just ended may not be freed yet.
        lately_more = max(connections, before) - self._connections_then
        would_take_s = self._took_s + lately_more * _EACH_S
        if would_take_s < _CHEAP_S and self._clock() - self._passed_at > _CHEAP_EVERY_S:
            self.collect_all()

    async def run(self) -> None:
        """Look every second, as long as the node runs."""
        while True:
            await beat(_LOOK_EVERY_S)
            self.look()
