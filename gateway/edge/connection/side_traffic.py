"""What a connection may send beside its messages.

Credit bounds messages, and nothing else that a device sends: pings and pongs, tiny fragments,
results, credentials, further hellos. Each costs the loop some microseconds, and one read from the
socket can hold forty thousand pings, so one device could stall all others. Here each of them spends
two rates, frames and bytes a second. A connection beyond its rates is read more slowly, and one
that stays beyond them is closed.

This is virtual scheduling (GCRA, as `admission.gcra`) of what was already received: spending always
succeeds, and the connection pauses until the debt is paid. Pure: the connection passes the time and
does the pausing.
"""

import math
from dataclasses import dataclass
from typing import Final

SMALL_FRAGMENT_BYTES: Final = 1_024
"""A fragment of this size or more is not counted: too few of them fit a packet to do harm."""
HELLO_FRAMES: Final = 5
"""A further hello costs as much as this many plain frames: it may cause a look-up."""
CREDENTIAL_FRAMES: Final = 20
"""A credential costs as much as this many plain frames: its signature is checked."""


@dataclass(frozen=True, slots=True)
class SideBudget:
    """Rates of one connection, the same for all of a node. A burst may come at once.

    The defaults are those of `config/gateway.toml`.
    """

    frames_per_s: float = 200.0
    frames_burst: int = 200
    bytes_per_s: float = 262_144.0
    bytes_burst: int = 524_288
    patience_s: float = 30.0
    """How long a connection may stay beyond its rates."""

    def __str__(self) -> str:
        return f"{self.frames_per_s:.0f} frames or {self.bytes_per_s:.0f} bytes a second"


class SideTraffic:
    """What one connection has spent of its rates."""

    __slots__ = ("_beyond_since", "_budget", "_bytes_paid_at", "_frames_paid_at", "read_at")

    def __init__(self, budget: SideBudget) -> None:
        self._budget = budget
        self._frames_paid_at = -math.inf
        self._bytes_paid_at = -math.inf
        self._beyond_since = math.inf
        self.read_at = math.inf
        """When the connection reads its peer again; infinity if it reads now."""

    def spend(self, frames: int, size: int, now: float) -> float:
        """Count what came beside messages.

        Args:
            frames: how many, in the cost of plain ones.
            size: their bytes together.
            now: seconds, monotonic.

        Returns:
            Seconds for which to read nothing: usually 0, infinity if the connection must close.
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
        # Wait until half the burst is there again, or the next frame would already be too much.
        return max(frames_s - frames_burst_s / 2, bytes_s - bytes_burst_s / 2)
