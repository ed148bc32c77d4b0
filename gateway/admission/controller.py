"""The rate controller: R follows the health of what is downstream (AIMD, like TCP).

R grows by a fixed step while every signal is below its low mark. It shrinks by a factor when a
signal is above its high mark. Between the marks it stays (hysteresis). After a decrease it stays
for a while, so that the effect shows before the next decrease. R is between a floor and a ceiling.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

SIGNALS: Final = ("puback_p99", "publish_backlog", "loop_lag")
CEILING: Final = "ceiling"
"""What limits R when no signal does."""


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
    """R, and the signal that limits it."""

    def __init__(self, settings: ControllerSettings) -> None:
        self._settings = settings
        self._calm_from = 0.0
        self.rate_per_s = settings.ceiling_per_s
        self.limited_by = CEILING
        self.signals: Mapping[str, float] = {}
        """The readings of the last time."""

    def steer(self, *, floor_per_s: float, ceiling_per_s: float) -> None:
        """Other bounds from now on; a floor above the ceiling is the ceiling.

        If no signal limits R, it goes to the new ceiling at once. Else it keeps to what the signals
        have made of it, within the new bounds.
        """
        floor_per_s = min(floor_per_s, ceiling_per_s)
        self._settings = replace(
            self._settings, floor_per_s=floor_per_s, ceiling_per_s=ceiling_per_s
        )
        if self.limited_by == CEILING:
            self.rate_per_s = ceiling_per_s
        else:
            self.rate_per_s = min(max(self.rate_per_s, floor_per_s), ceiling_per_s)

    def observe(self, signals: Mapping[str, float], now: float) -> float:
        """Adapt R to new readings.

        Args:
            signals: the value of each signal now. A missing signal counts as good.
            now: seconds of any one clock.

        Returns:
            R.
        """
        self.signals = signals
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
