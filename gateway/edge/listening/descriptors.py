"""File descriptors: how many a node needs, how many it may have, and what they are for.

A node whose devices hold every descriptor cannot reconnect to NATS, write a file or answer its
operator. So connections get what is left after a reserve, whatever the settings ask for.
"""

import resource
from dataclasses import dataclass
from typing import Final

RESERVED: Final = 256
"""For NATS, Redis, files, the ops listener, and what libraries open."""
_ANONYMOUS_SHARE: Final = 4
"""If there are too few for all, anonymous connections get a quarter."""


@dataclass(frozen=True, slots=True)
class Room:
    """The number of connections that a node may hold."""

    devices: int
    anonymous: int


def needed(devices: int, anonymous: int) -> int:
    """The descriptors that a node needs to hold so many connections."""
    return devices + anonymous + RESERVED


def room_within(limit: int, devices: int, anonymous: int) -> Room:
    """How many `devices` and `anonymous` connections `limit` descriptors are enough for."""
    left = max(2, limit - RESERVED)
    if devices + anonymous <= left:
        return Room(devices, anonymous)
    anonymous = min(anonymous, max(1, left // _ANONYMOUS_SHARE))
    return Room(min(devices, left - anonymous), anonymous)


def raise_limit(count: int) -> int:
    """Raise the limit to at least `count` descriptors if the system allows it.

    Returns:
        The number that this process may have.
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
