"""Revocations: credentials (by `jti`) and devices that are refused, until a time. Pure.

A revocation and its undoing are both facts about a subject, and each fact says when it was stated.
The newest fact about a subject wins. So nodes can exchange facts in any order, and as often as they
like, and all have the same facts in the end. An undoing therefore stays in the list until no node
can have the revocation that it undid.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from gateway.admission.credential import Identity

KEPT_S: Final = 86_400.0
"""How long a fact is kept after its end: a clock that was wrong for a while loses none."""
_LIFT_S: Final = 30 * 86_400.0
"""How long an undoing is kept if this node does not know the revocation."""
_TICK_S: Final = 0.001

Subject = tuple[str, ...]
"""(jti,) or (tenant, device)."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """One fact about a `jti`, or about a device of a tenant. Times are Unix seconds."""

    until: float
    jti: str = ""
    tenant: str = ""
    device: str = ""
    at: float = 0.0
    """When the fact was stated. `RevocationList.state` sets it."""
    lifted: bool = False
    """Whether this fact undoes a revocation."""

    def __post_init__(self) -> None:
        if bool(self.jti) == bool(self.device) or bool(self.device) != bool(self.tenant):
            raise ValueError("a revocation names a jti, or a tenant and device")
        if not (math.isfinite(self.until) and math.isfinite(self.at)):
            raise ValueError("the times of a revocation are finite")

    @property
    def key(self) -> Subject:
        return (self.jti,) if self.jti else (self.tenant, self.device)

    def replaces(self, other: "Revocation") -> bool:
        """Whether this fact is newer. Of two facts of one moment, the one that revokes wins."""
        return (self.at, not self.lifted) > (other.at, not other.lifted)


class RevocationList:
    """All facts that this node knows, one for each subject."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """
        Args:
            clock: Unix time in seconds. If two clocks disagree, give the earlier one.
        """
        self._clock = clock
        self._facts: dict[Subject, Revocation] = {}

    def __len__(self) -> int:
        return len(self._facts)

    def add(self, fact: Revocation) -> bool:
        """Take over a fact.

        Returns:
            Whether it is newer than the known fact about its subject.
        """
        known = self._facts.get(fact.key)
        if known is not None and not fact.replaces(known):
            return False
        self._facts[fact.key] = fact
        return True

    def state(self, fact: Revocation) -> Revocation:
        """State `fact` now: it is newer than the known fact about its subject, and replaces it.

        An undoing lasts at least as long as the revocation that it undoes.
        """
        known, now = self._facts.get(fact.key), self._clock()
        at, until = now, fact.until
        if fact.lifted:
            until = max(until, now + _LIFT_S if known is None else known.until)
        if known is not None:
            at = max(at, known.at + _TICK_S)
        stated = replace(fact, at=at, until=until)
        self._facts[stated.key] = stated
        return stated

    def revoked(self, identity: Identity) -> bool:
        """Whether `identity` is refused now."""
        for key in ((identity.tenant, identity.device), (identity.jti,)):
            fact = self._facts.get(key)
            if fact is not None and self._in_force(fact):
                return True
        return False

    def in_force(self) -> list[Revocation]:
        """All revocations that hold now."""
        return [fact for fact in self._facts.values() if self._in_force(fact)]

    def facts(self) -> list[Revocation]:
        """All facts to keep. Facts that ended long ago are forgotten here."""
        oldest = self._clock() - KEPT_S
        self._facts = {key: fact for key, fact in self._facts.items() if fact.until > oldest}
        return list(self._facts.values())

    def _in_force(self, fact: Revocation) -> bool:
        return not fact.lifted and fact.until > self._clock()
