"""When a worker that has died is started again, and when there is no point in it. Pure.

The wait has full jitter below a ceiling that doubles with each death in a row that came at once. A
worker that has lived for a while begins anew. Too many deaths at once in a row mean that the next
one would die too: then the gateway ends with the reason, so that its service manager and its
operator see it.
"""

import random
from typing import Final

from gateway.jitter import full_jitter_s

AT_ONCE_S: Final = 10.0
"""A worker that dies earlier than this after its start has died at once."""
DEATHS_MAX: Final = 5
"""Deaths at once in a row after which a worker is given up."""
FIRST_S: Final = 0.2
"""The ceiling of the first wait."""
MOST_S: Final = 5.0
"""The highest ceiling."""


class RestartPolicy:
    """Of one worker."""

    def __init__(self, rng: random.Random) -> None:
        """
        Args:
            rng: source of jitter.
        """
        self._rng = rng
        self._at_once = 0

    def died(self, lived_s: float) -> float | None:
        """The worker has died.

        Args:
            lived_s: seconds since its start.

        Returns:
            Seconds to wait before it is started again; None if it must be given up.
        """
        self._at_once = self._at_once + 1 if lived_s < AT_ONCE_S else 0
        if self._at_once >= DEATHS_MAX:
            return None
        return full_jitter_s(self._rng, self._at_once, first_s=FIRST_S, max_s=MOST_S)
