"""The figures of sides that take turns: medians, spread of the control, verdict. Pure."""

import statistics
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from loadtest.verdicts import Report

MESSAGE: Final = "message"
MESSAGE_NATS: Final = "message, nats-server"
REFUSAL: Final = "refusal"
ADMISSION: Final = "admission"
FIGURES: Final = (MESSAGE, MESSAGE_NATS, REFUSAL, ADMISSION)
TOLERANCE: Final = 0.03


class Series:
    """What one side measured, turn by turn: microseconds of CPU, by figure."""

    def __init__(self) -> None:
        self._values: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, turn: Mapping[str, float]) -> None:
        """Take the figures of one turn."""
        for name, value in turn.items():
            self._values[name].append(value)

    def of(self, figure: str) -> list[float]:
        """The values of one figure."""
        return self._values[figure]

    def median(self, figure: str) -> float:
        return statistics.median(self._values[figure])


def spread(values: list[float]) -> float:
    """The distance between the quartiles, over the median; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / middle


def judge(report: Report, series: Mapping[str, Series], turns: int) -> None:
    """Print a table of the medians, and a verdict on each figure of B.

    B is compared with A and the control together. The spread is theirs, too.

    Args:
        report: prints them.
        series: of the sides `A`, `B` and `control`.
        turns: that each side took.
    """
    ours, theirs, control = series["B"], series["A"], series["control"]
    rows, verdicts = [], []
    for name in FIGURES:
        same = theirs.of(name) + control.of(name)
        change = ours.median(name) / statistics.median(same) - 1
        apart = control.median(name) / theirs.median(name) - 1
        allowed = max(TOLERANCE, abs(apart), spread(same))
        rows.append(
            (
                name,
                *(f"{each.median(name):.2f}" for each in (theirs, ours, control)),
                f"{change:+.1%}",
                f"{apart:+.1%}",
                f"{spread(same):.1%}",
            )
        )
        verdicts.append((name, change, allowed))
    report.table(
        f"CPU, microseconds, medians of {turns} turns",
        ("", "A", "B", "control", "B / A", "control / A", "spread"),
        rows,
    )
    for name, change, allowed in verdicts:
        wanted = f"at most {allowed:+.1%}"
        report.verdict(f"{name}, change in %", change * 100, wanted, ok=change <= allowed)
