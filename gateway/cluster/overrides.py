"""Settings that operators have changed for a time, on all nodes of a fleet. Pure.

There is one override a setting, and the newest wins. It ends by itself: each node compares its end
with fleet time. Undoing one is a newer fact about the same setting (`lifted`).
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

NUMBERS: Final = ("rate_per_s", "rate_floor_per_s", "burst")
LOG_LEVEL: Final = "log_level"
NAMES: Final = (*NUMBERS, LOG_LEVEL)
LEVELS: Final = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Override:
    """One setting and its value until then. Times are fleet time, Unix time in seconds."""

    name: str
    value: float | str
    until: float
    at: float = 0.0
    """When it was ordered."""
    by: str = ""
    """Who ordered it."""
    lifted: bool = False


class Overrides:
    """What this node knows of them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """
        Args:
            clock: fleet time.
        """
        self._clock = clock
        self._facts: dict[str, Override] = {}

    def state(self, override: Override) -> Override:
        """Take over an order of an operator of this node; newer than all that is known.

        Returns:
            The fact, with its time.
        """
        known = self._facts.get(override.name)
        after = math.nextafter(known.at, math.inf) if known is not None else 0.0
        fact = self._facts[override.name] = replace(override, at=max(self._clock(), after))
        return fact

    def learn(self, facts: Sequence[Override]) -> None:
        """Take over what other nodes know, as far as it is newer."""
        for fact in facts:
            known = self._facts.get(fact.name)
            if known is None or fact.at > known.at:
                self._facts[fact.name] = fact

    def facts(self) -> list[Override]:
        """All that is known, to give it to other nodes; ended ones too."""
        return list(self._facts.values())

    def in_force(self) -> dict[str, Override]:
        """What holds now, by the name of the setting."""
        now = self._clock()
        return {
            name: fact for name, fact in self._facts.items() if not fact.lifted and fact.until > now
        }


def render_override(fact: Override) -> str:
    """One line of JSON."""
    return json.dumps(asdict(fact))


def parse_override(text: str) -> Override | None:
    """The fact, or None if it is none: other programs may write to our keys."""
    try:
        document = json.loads(text)
        name, value = document["name"], document["value"]
        fact = Override(
            name,
            value if name == LOG_LEVEL else float(value),
            until=float(document["until"]),
            at=float(document["at"]),
            by=str(document["by"]),
            lifted=bool(document["lifted"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return fact if _holds(fact) else None


def _holds(fact: Override) -> bool:
    """Whether a node could obey it."""
    value: Any = fact.value
    good = value in LEVELS if fact.name == LOG_LEVEL else math.isfinite(value) and value > 0
    return fact.name in NAMES and good and math.isfinite(fact.at) and math.isfinite(fact.until)
