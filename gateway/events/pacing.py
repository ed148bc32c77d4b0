"""How fast a reader goes that several rules share, and which rule is too slow for it.

The reader goes on while there is room for the events that its rules were given and have not
delivered. The room grows with the number of rules, up to `SHARES_MAX` shares. A rule leaves the
reader, and goes on alone,

- if it alone fills a share of the room while the others hold less than half of that on average, or
- if there is no room and it has delivered nothing for `STALLED_S`.

So a target that is down or slow holds back its own rule. Rules that are slow together, because the
machine or their common target is, stay together: each further reader would read, decode and match
everything once more.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

SHARE_EVENTS: Final = 4_000
SHARE_BYTES: Final = 4 << 20
SHARES_MAX: Final = 12
"""A target's stream syncs each batch, so a hundred rules need batches that are worth it."""
STALLED_S: Final = 5.0


class Load(Struct):
    """What one rule was given and has not delivered."""

    events: int = 0
    size_bytes: int = 0
    moved_at: float = 0.0
    """When it was given the oldest of that, or delivered something last; monotonic seconds."""

    @property
    def shares(self) -> float:
        """Shares of the room that it fills."""
        return max(self.events / SHARE_EVENTS, self.size_bytes / SHARE_BYTES)


def has_room(loads: Sequence[Load]) -> bool:
    """Whether the reader may go on."""
    return sum(load.shares for load in loads) < min(len(loads), SHARES_MAX)


def leavers(loads: Sequence[Load], now: float) -> list[int]:
    """The places of the loads whose rules must leave the reader."""
    if len(loads) < 2:  # noqa: PLR2004  # no other rule is held back
        return []
    total = sum(load.shares for load in loads)
    others = len(loads) - 1
    full = total >= min(len(loads), SHARES_MAX)
    found = []
    for place, load in enumerate(loads):
        shares = load.shares
        crowds = shares >= 1 and (total - shares) / others < shares / 2
        stalled = full and load.events and now - load.moved_at >= STALLED_S
        if crowds or stalled:
            found.append(place)
    return found if len(found) < len(loads) else []
