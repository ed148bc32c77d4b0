"""Virtual scheduling (GCRA, ITU-T I.371): one number per limit says when the next event conforms.

The number is the theoretical arrival time of the next event. No timer refills anything, so the
limit is exact over any window: events in `w` seconds never exceed `rate * w + burst`. An event that
does not conform changes nothing, so a client cannot lengthen its own penalty by knocking.
"""

import math
from collections import OrderedDict
from collections.abc import Hashable


class Gcra:
    """A rate with a burst. Times in seconds of a clock that cannot be set; costs in events."""

    __slots__ = ("_arrival", "_burst", "_burst_s", "_rate_per_s")

    def __init__(self, *, rate_per_s: float, burst: float, now: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._burst_s = burst / rate_per_s
        self._arrival = now - self._burst_s

    def set_rate(self, rate_per_s: float, now: float) -> None:
        """Change the rate. The credit so far, or the debt, is kept in events."""
        credit = self.credit(now)
        self._rate_per_s = rate_per_s
        self._burst_s = self._burst / rate_per_s
        self._arrival = now - credit / rate_per_s

    def set_burst(self, burst: float) -> None:
        """Change how many events conform at once; credit beyond that is lost."""
        self._burst = burst
        self._burst_s = burst / self._rate_per_s

    def credit(self, now: float) -> float:
        """How many events conform now, at most `burst`; negative for a debt."""
        credit = (now - self._arrival) * self._rate_per_s
        return credit if credit < self._burst else self._burst

    def ready_at(self, cost: float = 1.0) -> float:
        """The time from which an event of `cost` conforms."""
        return self._arrival + cost / self._rate_per_s

    def conforms(self, now: float, cost: float = 1.0) -> bool:
        return self._arrival + cost / self._rate_per_s <= now

    def take(self, now: float, cost: float = 1.0) -> None:
        """Count an event, also one that does not conform: this makes a debt."""
        arrival = self._arrival
        earliest = now - self._burst_s
        self._arrival = (arrival if arrival > earliest else earliest) + cost / self._rate_per_s

    def take_if_conforms(self, now: float, cost: float) -> bool:
        """Count an event if it conforms."""
        arrival, cost_s = self._arrival, cost / self._rate_per_s
        if arrival + cost_s > now:
            return False
        earliest = now - self._burst_s
        self._arrival = (arrival if arrival > earliest else earliest) + cost_s
        return True


class KeyedLimiter:
    """A GCRA for each key. The number of keys is bounded: the least recently seen is forgotten."""

    __slots__ = ("_arrivals", "_burst_s", "_interval_s", "_keys_max")

    def __init__(self, *, rate_per_s: float, burst: float, keys_max: int) -> None:
        """
        Args:
            rate_per_s: sustained events of one key.
            burst: events of one key at once.
            keys_max: keys that are remembered. A forgotten key has a full burst again.

        `now` is local time (see `admission/clock.py`). With a wall clock that is set back, every
        key would be refused for as long as the step.
        """
        self._interval_s = 1 / rate_per_s
        self._burst_s = burst / rate_per_s
        self._keys_max = keys_max
        self._arrivals: OrderedDict[Hashable, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._arrivals)

    def wait_s(self, key: Hashable, now: float) -> float:
        """Count an event of `key` if it conforms.

        Returns:
            0 if it conforms, else the seconds until one will. Asking again does not change that
            time.
        """
        arrivals = self._arrivals
        arrival = arrivals.get(key, -math.inf)
        if arrival > now:
            return arrival - now
        earliest = now - self._burst_s + self._interval_s
        arrivals[key] = max(arrival, earliest) + self._interval_s
        arrivals.move_to_end(key)
        if len(arrivals) > self._keys_max:
            arrivals.popitem(last=False)
        return 0.0
