"""A bound on the CPU time for signatures of credentials that were not verified before.

Forging a credential costs an attacker nothing, and checking it costs the gateway about a hundred
microseconds. So the share of a core that may be spent on it is limited. A part of it is reserved
for knocks that show a valid ticket for the device that they claim to be: these have knocked before.
"""

from gateway.admission.gcra import Gcra

_COST_GUESS_S = 0.0001


class VerificationBudget:
    """CPU seconds that may be spent on credentials that were not verified before."""

    def __init__(self, *, share: float, reserved: float = 0.25, now: float) -> None:
        """
        Args:
            share: of one core, 0 to 1.
            reserved: the part of the share that only ticket holders may use.
            now: seconds of any one clock.
        """
        self._bucket = Gcra(rate_per_s=share, burst=share, now=now)
        self._reserved_s = share * reserved
        self.spent_s = 0.0

    def allows(self, now: float, *, has_ticket: bool) -> bool:
        """Whether one more signature may be checked."""
        floor_s = 0.0 if has_ticket else self._reserved_s
        return self._bucket.conforms(now, floor_s + _COST_GUESS_S)

    def spend(self, seconds: float, now: float) -> None:
        """Count the CPU time of a signature that was checked."""
        self._bucket.take(now, seconds)
        self.spent_s += seconds
