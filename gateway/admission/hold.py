"""A hold: no device is admitted, because the stream stores nothing.

The gateway cannot know how long a hold lasts. So a device that is refused in a hold gets the next
free slot of the calendar, as in any storm: devices come back at R, and are admitted at R as soon as
the hold is over. A device whose slot comes while the hold still lasts gets another slot.

If few devices wait, the next free slot is near. The pause of this module keeps them from asking all
the time. It is short when a hold begins (a node that starts) and grows with the hold.
"""

import random
from typing import Final

_PAUSE_MIN_S: Final = 1.0
_PAUSE_SHARE: Final = 0.25
"""Of the time the hold has lasted: the pause delays the end of a storm by no more than this."""


class Hold:
    """One hold. Times in seconds of the clock that `since` is of."""

    def __init__(self, *, since: float, pause_s_max: float, rng: random.Random) -> None:
        """
        Args:
            since: when the hold began.
            pause_s_max: the pause grows up to this.
            rng: source of jitter.
        """
        self._since = since
        self._pause_s_max = pause_s_max
        self._rng = rng

    def pause_s(self, now: float) -> float:
        """How long a device stays away at least."""
        longest_s = max(_PAUSE_MIN_S, (now - self._since) * _PAUSE_SHARE)
        return min(self._pause_s_max, longest_s) * self._rng.uniform(0.5, 1.0)
