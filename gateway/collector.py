"""The cyclic collector, kept from stalling ten thousand connections, and from hoarding garbage.

CPython's collector visits what was made since its last pass, and now and then everything that lives
(`gc`, "generations"). With a whole fleet connected, a pass over everything stalls the event loop
for about 0.1 s. So:

- What the process starts with (modules, mostly) is set aside once and never visited (`gc.freeze`).
- Passes over the young are small, about a millisecond. What survives one is not visited again ...
- ... until memory has grown by more than what is connected explains. Then there may be garbage, and
  a pass over everything made since the start finds it. This bounds what can be hoarded to a quarter
  of what lives and a fixed amount, whatever the code does.
- A pass over everything that costs next to nothing, because little lives, is made each minute.

Connections leave no cycles (`tests/test_leftovers.py`), so a busy node is not expected to need the
third kind. It is logged when it happens.
"""

import asyncio
import gc
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

_log = structlog.get_logger(__name__)

_YOUNG: Final = 2_000
"""Objects made beyond those gone, before a pass over the young: about a millisecond's worth."""
_NEVER: Final = 2**31 - 1
_GROWTH: Final = 0.25
"""Memory may grow by this share of what lived after the last pass over everything."""
_LOOK_EVERY_S: Final = 1.0
_CHEAP_S: Final = 0.01
_EACH_S: Final = 20e-6
"""What a connection adds to a pass over everything, about."""
_CHEAP_EVERY_S: Final = 60.0
_MIB: Final = 1_048_576
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure of memory that garbage adds to."""

    read: Callable[[], int]
    each: int
    """What a connection may explain of it."""
    slack: int
    """How much it may grow at least before that is taken for garbage."""


def resident_bytes() -> int:
    """Resident memory of this process; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
    except OSError:
        return 0
    return pages * _PAGE_BYTES


def measures(*, tls: bool) -> tuple[Measure, ...]:
    """What a gateway watches.

    Args:
        tls: whether its connections have TLS, which costs more memory each.
    """
    # A session with all that is remembered of its device is 50 blocks. Large buffers are no blocks.
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
        self._took_s = 0.0
        self._passed_at = 0.0

    def start(self) -> None:
        """From now on. Call it when what the process starts with has been made."""
        self._started = True
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG, _NEVER, _NEVER)
        self.collect_all()

    def stop(self) -> None:
        """As it was before; nothing if it was not started."""
        if not self._started:
            return
        self._started = False
        gc.set_threshold(*self._threshold)
        gc.unfreeze()

    def collect_all(self) -> int:
        """Visit everything that was made since the start.

        Returns:
            Objects that were unreachable.
        """
        began = self._clock()
        found = gc.collect()
        self._passed_at = self._clock()
        self._took_s = self._passed_at - began
        self._after = [measure.read() for measure in self._watched]
        self._connections_then = self._connections()
        return found

    def look(self) -> None:
        """Make a pass over everything if it is due."""
        more = max(0, self._connections() - self._connections_then)
        for measure, after in zip(self._watched, self._after, strict=True):
            grown = measure.read() - after - more * measure.each
            if grown > max(measure.slack, after * _GROWTH):
                found = self.collect_all()
                _log.warning(
                    "memory_grew", objects_unreachable=found, seconds=round(self._took_s, 3)
                )
                return
        would_take_s = self._took_s + (self._connections() - self._connections_then) * _EACH_S
        if would_take_s < _CHEAP_S and self._clock() - self._passed_at > _CHEAP_EVERY_S:
            self.collect_all()

    async def run(self) -> None:
        """Look again and again, as long as the node runs."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            self.look()
