"""A bound on signature work for credentials nobody has verified yet.

Forging a credential costs an attacker nothing and checking it costs us tens of microseconds, so the
share of a core that may be spent on it is limited. A knock that shows a valid ticket for the device
it claims has been here before; for those a part is kept free.
"""

from gateway.admission.gcra import Gcra

_COST_GUESS_S = 0.0001


class VerificationBudget:
    """CPU seconds that may be spent on unverified credentials."""

    def __init__(self, *, share: float, reserved: float = 0.25, now: float) -> None:
        """
        Args:
            share: of one core, 0 to 1.
            reserved: part of it that only ticket holders may use.
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
        """A signature was checked."""
        self._bucket.take(now, seconds)
        self.spent_s += seconds
