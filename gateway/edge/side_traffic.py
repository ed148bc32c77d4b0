"""What a connection may send beside its messages.

Messages are bounded by credit. Nothing else a device sends is: pings and pongs, tiny fragments,
results, credentials, further hellos. Each costs the loop some microseconds, and one read from the
socket holds forty thousand pings, so that one device could stall all others. Here each costs a
share of two rates, frames and bytes a second; a connection beyond them is read more slowly, and one
that stays beyond them is closed.

Virtual scheduling (GCRA, as `admission.gcra`), but of what was received already: spending always
succeeds, and a debt is slept off. Pure; the connection brings the time and does the sleeping.
"""

import math
from dataclasses import dataclass
from typing import Final

SMALL_FRAGMENT_BYTES: Final = 1_024
"""A fragment this large is worth its frame: no device fragments that finely to do harm."""
HELLO_FRAMES: Final = 5
"""A further hello costs as many plain frames: it opens an outlet and may look up."""
CREDENTIAL_FRAMES: Final = 20
"""So does a credential: its signature is checked."""


@dataclass(frozen=True, slots=True)
class SideBudget:
    """Rates of a connection, shared by all of a node. Bursts are what may come at once."""

    frames_per_s: float = 200.0
    frames_burst: int = 200
    bytes_per_s: float = 262_144.0
    bytes_burst: int = 524_288
    patience_s: float = 30.0
    """How long a connection may stay beyond its rates."""

    def __str__(self) -> str:
        return f"{self.frames_per_s:.0f} frames or {self.bytes_per_s:.0f} bytes a second"


class SideTraffic:
    """What one connection has spent."""

    __slots__ = ("_beyond_since", "_budget", "_bytes_paid_at", "_frames_paid_at")

    def __init__(self, budget: SideBudget) -> None:
        self._budget = budget
        self._frames_paid_at = -math.inf
        self._bytes_paid_at = -math.inf
        self._beyond_since = math.inf

    def spend(self, frames: int, size: int, now: float) -> float:
        """Something came beside messages.

        Args:
            frames: how many, as a plain one costs.
            size: their bytes together.
            now: seconds, monotonic.

        Returns:
            Seconds for which to read nothing: 0 for most, infinity if the connection must go.
        """
        budget = self._budget
        if self._frames_paid_at <= now and self._bytes_paid_at <= now:
            self._beyond_since = math.inf
        self._frames_paid_at = max(self._frames_paid_at, now) + frames / budget.frames_per_s
        self._bytes_paid_at = max(self._bytes_paid_at, now) + size / budget.bytes_per_s
        frames_s, frames_burst_s = (
            self._frames_paid_at - now,
            budget.frames_burst / budget.frames_per_s,
        )
        bytes_s, bytes_burst_s = self._bytes_paid_at - now, budget.bytes_burst / budget.bytes_per_s
        if frames_s <= frames_burst_s and bytes_s <= bytes_burst_s:
            return 0.0
        self._beyond_since = min(self._beyond_since, now)
        if now - self._beyond_since > budget.patience_s:
            return math.inf
        # Half the burst has to be there again, or the next frame would be one too many.
        return max(frames_s - frames_burst_s / 2, bytes_s - bytes_burst_s / 2)
