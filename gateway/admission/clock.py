"""The fleet's clock: Unix time that never jumps.

Slots are moments all nodes agree on, so they are told in wall time; but a wall clock can be set,
and a jump must not void every ticket. So it is read once and carried on by the monotonic clock, and
where nodes share a reference it is steered towards that, a little at a time.
"""

from collections.abc import Callable
from typing import Final

_SLEW_SHARE: Final = 0.1
"""At most this share of the error is corrected in one step, beyond a coarse first one."""
_COARSE_S: Final = 1.0


class FleetClock:
    """Call it for the time, in seconds."""

    def __init__(self, wall: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._offset_s = wall() - monotonic()
        self._steered = False

    def __call__(self) -> float:
        return self._monotonic() + self._offset_s

    def steer(self, reference: float) -> None:
        """`reference` is the time it should be now: a step at first or when far off, else a bit."""
        error_s = reference - self()
        if not self._steered or abs(error_s) > _COARSE_S:
            self._steered = True
            self._offset_s += error_s
        else:
            self._offset_s += error_s * _SLEW_SHARE
