"""How old a message is, measured so that a wall clock which jumps does no harm.

An outbox has a time of its own, in milliseconds: it starts somewhere and never goes back. While a
process runs it follows the time since boot, which no operator, GPS or NTP can set. Between two
openings of the file in the same boot it does too. Across a reboot only the wall clock is left. Its
word counts if it went forward and neither reading is older than this code; otherwise the
time while the device was off counts as nothing. So a message can look too young, and is then kept
and looked up once more than needed; a device that wakes in 1970 drops nothing.
"""

import functools
import secrets
import time
from pathlib import Path
from typing import Final, NamedTuple

_BOOT_ID_FILE: Final = Path("/proc/sys/kernel/random/boot_id")

CREDIBLE_MS: Final = 1_735_689_600_000
"""2025-01-01T00:00:00Z: an earlier wall clock was never set."""


class Uptime(NamedTuple):
    """Time since a boot; `boot` names it."""

    boot: str
    ms: int


class Stamp(NamedTuple):
    """A moment: in the outbox's own time, since boot, and on the wall."""

    outbox_ms: int
    boot: str
    uptime_ms: int
    wall_ms: int


def uptime() -> Uptime:
    """Time since boot including suspend, where the system counts it; monotonic time elsewhere."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return Uptime(_boot_id(), time.clock_gettime_ns(clock) // 1_000_000)


@functools.cache
def _boot_id() -> str:
    """The system's name for this boot. Where it has none, a name for this process."""
    try:
        return _BOOT_ID_FILE.read_text(encoding="ascii").strip()
    except OSError:
        return secrets.token_hex(16)


def stamp_now(last: Stamp, now: Uptime, wall_ms: int) -> Stamp:
    """The present moment, given an earlier one; the outbox's time never goes back."""
    if now.boot == last.boot:
        passed_ms = now.ms - last.uptime_ms
    elif min(last.wall_ms, wall_ms) >= CREDIBLE_MS:
        passed_ms = wall_ms - last.wall_ms
    else:
        passed_ms = 0
    return Stamp(last.outbox_ms + max(0, passed_ms), now.boot, now.ms, wall_ms)
