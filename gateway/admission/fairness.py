"""Shares of recent slots by tenant, and by group within a tenant: who had few goes first.

When the power returns in one depot, its devices must not take every slot. A device goes first if
its tenant, or its group within the tenant, had less than half of an even share lately. Counts fade
exponentially with a time constant. The number of names is bounded.
"""

import math
from collections import OrderedDict
from typing import Final

_FAINT: Final = 0.01
"""A count below this counts as none."""


class _Count:
    """The count of one name, changed in place: to replace a float in the dictionary costs more."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


class _Shares:
    """Fading counts by name."""

    __slots__ = ("_counts", "_names_max", "_total", "only")

    def __init__(self, names_max: int) -> None:
        self._counts: OrderedDict[str, _Count] = OrderedDict()
        self._names_max = names_max
        self._total = 0.0
        self.only: str | None = None
        """The name, if there is only one. It never had too little."""

    def add(self, name: str, weight: float) -> None:
        counts = self._counts
        count = counts.get(name)
        if count is None:
            count = counts[name] = _Count()
            self.only = name if len(counts) == 1 else None
        count.value += weight
        self._total += weight
        if self.only is not None:
            return
        counts.move_to_end(name)
        if len(counts) > self._names_max:
            self._forget_oldest()

    def little(self, name: str) -> bool:
        """Whether `name` had less than half of an even share. Never if it is the only name."""
        count = self._counts.get(name)
        others = len(self._counts) - (count is not None)
        if not others:
            return False
        return (count.value if count is not None else 0.0) < self._total / (others + 1) / 2

    def fade(self, factor: float) -> None:
        """Multiply all counts, and forget what is faint by then, the oldest first."""
        counts = self._counts
        for count in counts.values():
            count.value *= factor
        self._total *= factor
        while counts and next(iter(counts.values())).value < _FAINT:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        counts = self._counts
        _name, count = counts.popitem(last=False)
        self._total -= count.value
        self.only = next(iter(counts)) if len(counts) == 1 else None


class FairShares:
    """Recent slots by tenant and by group."""

    def __init__(self, *, fade_s: float = 10.0, names_max: int = 10_000) -> None:
        """
        Args:
            fade_s: time constant of fading.
            names_max: how many tenants are remembered, and how many groups of a tenant.
        """
        self._fade_s = fade_s
        self._names_max = names_max
        self._tenants = _Shares(names_max)
        self._groups: OrderedDict[str, _Shares] = OrderedDict()
        self._epoch = 0.0
        self._fade_after_s = 20 * fade_s  # e^20 is far below any loss of precision

    def underserved(self, tenant: str, group: str, now: float) -> bool:
        if now - self._epoch >= self._fade_after_s:
            self._fade(now)
        tenants = self._tenants
        if tenants.only != tenant and tenants.little(tenant):
            return True
        groups = self._groups.get(tenant)
        return groups is not None and groups.only != group and groups.little(group)

    def served(self, tenant: str, group: str, cost: float, now: float) -> None:
        """Count a slot of a device."""
        elapsed_s = now - self._epoch
        if elapsed_s >= self._fade_after_s:
            self._fade(now)
            elapsed_s = 0.0
        # Instead of fading all counts all the time, let each new slot weigh more than the last.
        weight = cost * math.exp(elapsed_s / self._fade_s)
        self._tenants.add(tenant, weight)
        groups = self._groups.get(tenant)
        if groups is None:
            groups = self._groups[tenant] = _Shares(max(1, self._names_max))
            if len(self._groups) > self._names_max:
                self._groups.popitem(last=False)
        groups.add(group, weight)

    def _fade(self, now: float) -> None:
        elapsed = (now - self._epoch) / self._fade_s
        factor = math.exp(-min(elapsed, 700.0))
        self._epoch = now
        for shares in (self._tenants, *self._groups.values()):
            shares.fade(factor)
