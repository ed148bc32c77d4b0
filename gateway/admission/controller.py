"""The rate controller: R follows the health of what is downstream (AIMD, as TCP does a network).

Additive increase while every signal is below its low mark, multiplicative decrease when one is
above its high mark, nothing in between (hysteresis) and nothing for a while after a decrease, so
that its effect is seen before the next. R stays between a floor and a ceiling.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

SIGNALS: Final = ("puback_p99", "publish_backlog", "loop_lag")
CEILING: Final = "ceiling"
"""What limits R when nothing downstream does."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Above `high` a signal is bad, below `low` it is good."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """Rates in admissions a second, times in seconds; `decrease` and `increase` are shares."""

    floor_per_s: float
    ceiling_per_s: float
    marks: Mapping[str, Marks]
    decrease: float = 0.7
    increase: float = 0.05
    cooldown_s: float = 3.0


class RateController:
    """R and what holds it down."""

    def __init__(self, settings: ControllerSettings) -> None:
        self._settings = settings
        self._calm_from = 0.0
        self.rate_per_s = settings.ceiling_per_s
        self.limited_by = CEILING

    def observe(self, signals: Mapping[str, float], now: float) -> float:
        """Take a reading.

        Args:
            signals: present value of each signal; one that is missing is good.
            now: seconds of any one clock.

        Returns:
            R.
        """
        settings = self._settings
        worst, badness = "", 1.0
        good = True
        for name, marks in settings.marks.items():
            value = signals.get(name, 0.0)
            good = good and value < marks.low
            if value / marks.high > badness:
                worst, badness = name, value / marks.high
        if worst:
            self.limited_by = worst
            if now >= self._calm_from:
                self._calm_from = now + settings.cooldown_s
                self.rate_per_s = max(settings.floor_per_s, self.rate_per_s * settings.decrease)
        elif good and now >= self._calm_from:
            step = settings.increase * settings.ceiling_per_s
            self.rate_per_s = min(settings.ceiling_per_s, self.rate_per_s + step)
            if self.rate_per_s >= settings.ceiling_per_s:
                self.limited_by = CEILING
        return self.rate_per_s
