"""File descriptors: how many a node needs, may have, and gives to whom.

A node whose devices take every descriptor cannot reconnect to NATS, write a file or answer its
operator. So connections get what is left after a reserve, whatever the settings ask for.
"""

import resource
from dataclasses import dataclass
from typing import Final

RESERVED: Final = 256
"""For NATS, Redis, files, the ops listener, and what libraries open."""
_ANONYMOUS_SHARE: Final = 4
"""Anonymous connections get a quarter of what is there if it is too little for all."""


@dataclass(frozen=True, slots=True)
class Room:
    """How many connections a node may hold."""

    devices: int
    anonymous: int


def needed(devices: int, anonymous: int) -> int:
    """Descriptors of a node that is set to hold so many connections."""
    return devices + anonymous + RESERVED


def room_within(limit: int, devices: int, anonymous: int) -> Room:
    """What can be held of `devices` and `anonymous` connections with `limit` descriptors."""
    left = max(2, limit - RESERVED)
    if devices + anonymous <= left:
        return Room(devices, anonymous)
    anonymous = min(anonymous, max(1, left // _ANONYMOUS_SHARE))
    return Room(min(devices, left - anonymous), anonymous)


def raise_limit(count: int) -> int:
    """Have at least `count` descriptors if the system lets us.

    Returns:
        How many this process may have.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        return count
    within = count if hard == resource.RLIM_INFINITY else min(count, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (within, hard))
    except (OSError, ValueError):  # macOS has a lower bound of its own
        return soft
    return within
