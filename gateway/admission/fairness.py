"""Who has had little: shares of recent admissions by tenant, and by group within a tenant.

One depot's power return must not take every slot. Whoever belongs to a tenant (or a group) that has
had less than half of an even share lately goes first. Counts fade exponentially, so "lately" is a
time constant and nobody's past is held against them; the number of names is bounded.
"""

import math
from collections import OrderedDict
from typing import Final

_FAINT: Final = 0.01
"""A count below this is as good as never."""


class _Shares:
    """Fading counts by name."""

    __slots__ = ("_counts", "_names_max", "_scale", "_total")

    def __init__(self, names_max: int) -> None:
        self._counts: OrderedDict[str, float] = OrderedDict()
        self._names_max = names_max
        self._total = 0.0
        self._scale = 1.0

    def add(self, name: str, weight: float) -> None:
        self._counts[name] = self._counts.get(name, 0.0) + weight
        self._counts.move_to_end(name)
        self._total += weight
        if len(self._counts) > self._names_max:
            _name, count = self._counts.popitem(last=False)
            self._total -= count

    def little(self, name: str) -> bool:
        """Whether `name` had less than half of an even share; never if it is alone."""
        others = len(self._counts) - (name in self._counts)
        if not others:
            return False
        return self._counts.get(name, 0.0) < self._total / (others + 1) / 2

    def forget_below(self, faint: float) -> None:
        while self._counts:
            name, count = next(iter(self._counts.items()))
            if count >= faint:
                return
            del self._counts[name]
            self._total -= count

    def rescale(self, factor: float) -> None:
        for name in self._counts:
            self._counts[name] *= factor
        self._total *= factor


class FairShares:
    """Recent slots by tenant and group."""

    def __init__(self, *, fade_s: float = 10.0, names_max: int = 10_000) -> None:
        """
        Args:
            fade_s: time constant of fading.
            names_max: tenants remembered, and groups remembered.
        """
        self._fade_s = fade_s
        self._names_max = names_max
        self._tenants = _Shares(names_max)
        self._groups: OrderedDict[str, _Shares] = OrderedDict()
        self._epoch = 0.0

    def underserved(self, tenant: str, group: str, now: float) -> bool:
        self._fade(now)
        if self._tenants.little(tenant):
            return True
        groups = self._groups.get(tenant)
        return groups is not None and groups.little(group)

    def served(self, tenant: str, group: str, cost: float, now: float) -> None:
        """A slot was given."""
        self._fade(now)
        # Instead of fading every count all the time, each new one weighs more than the last.
        weight = cost * math.exp((now - self._epoch) / self._fade_s)
        self._tenants.add(tenant, weight)
        groups = self._groups.get(tenant)
        if groups is None:
            groups = self._groups[tenant] = _Shares(max(1, self._names_max))
            if len(self._groups) > self._names_max:
                self._groups.popitem(last=False)
        groups.add(group, weight)

    def _fade(self, now: float) -> None:
        elapsed = (now - self._epoch) / self._fade_s
        if elapsed < 20:  # noqa: PLR2004  # e^20: far from any loss of precision
            return
        factor = math.exp(-min(elapsed, 700.0))
        self._epoch = now
        for shares in (self._tenants, *self._groups.values()):
            shares.rescale(factor)
            shares.forget_below(_FAINT)
