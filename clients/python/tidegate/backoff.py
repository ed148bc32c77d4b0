"""When to connect again: a pure policy, the same on a device, in a load test and in the simulator.

- First attempt after a lost connection: uniform in [0, first_retry_ms], which the gateway sets to
  what its fleet needs. No failure has happened yet.
- Silence (a port that refuses, a timeout, a load balancer with nobody behind it): the gateway
  restarts. For the first minute the device asks about once in first_retry_ms, between half and one
  and a half of it. So a fleet asks no faster than its gateway can refuse, and every device has
  asked one and a half first_retry_ms after the gateway is back. After that minute each silence is a
  failure. A device that holds a ticket asks again sooner: its slot is now, another node may honour
  the ticket, and the calendar has already spread the devices that hold one.
- A refused credential: the gateway may learn a new key within seconds. For the first 15 s the
  device asks about once in first_retry_ms, as above. It counts as a failure all the same.
- Failures: exponential with full jitter, drawn after the cap, so that late attempts stay spread
  (AWS, "Exponential Backoff and Jitter"; jitter drawn before the cap makes them all equal). Never
  spread over less than first_retry_ms: what happens to a device may happen to its whole fleet.
- A time from the gateway is a floor: later is allowed, earlier never. With a ticket it is exact.
  Without one the whole wait is spread to first_retry_ms at least, and past a longer floor by a
  quarter of it or first_retry_ms, whichever is less. A gateway without a free slot names a time
  that is jittered already: a second jitter of first_retry_ms would let slots pass unused.
- Failures are forgotten only after a connection that was stable for a while.
"""

import random
from dataclasses import dataclass
from typing import Final

TOLD_MS_MAX: Final = 86_400_000
"""A longer time from a gateway is taken as one day."""

_SPREAD_SHARE: Final = 0.25
"""A fleet that is told one time by something without jitter, as a load balancer, is spread over
this share of it."""


@dataclass(frozen=True, slots=True)
class BackoffSettings:
    """Times in milliseconds.

    For `restart_ms` silence is taken as the restart of a gateway. For `doubt_ms` a refused
    credential is taken as signed with a key that the gateway does not know yet.
    """

    first_retry_ms: int = 2_000
    base_ms: int = 500
    cap_ms: int = 60_000
    stable_ms: int = 30_000
    restart_ms: int = 60_000
    doubt_ms: int = 15_000


class ReconnectPolicy:
    """Decides the wait before each attempt. It reads no clock: callers pass how long things
    took.
    """

    __slots__ = (
        "_doubt_ms", "_doubted", "_failures", "_first_retry_ms", "_floor_ms", "_fresh",
        "_restarting", "_rng", "_settings", "_silence_ms", "_silences", "ticket",
    )  # fmt: skip

    def __init__(self, settings: BackoffSettings, rng: random.Random) -> None:
        self._settings = settings
        self._rng = rng
        self._first_retry_ms = settings.first_retry_ms
        self._failures = 0
        self._silence_ms = 0.0
        self._silences = 0
        self._restarting = False
        self._doubt_ms = 0.0
        self._doubted = False
        self._floor_ms: int | None = None
        self.ticket: str | None = None
        """The ticket to show at the next attempt."""
        self._fresh = True

    @property
    def failures(self) -> int:
        """How many attempts in a row led to no stable connection."""
        return self._failures

    @property
    def has_floor(self) -> bool:
        """Whether the next attempt has a time from the gateway."""
        return self._floor_ms is not None

    def told_first_retry(self, first_retry_ms: int) -> None:
        """The gateway has named the time over which its fleet spreads the first attempt."""
        self._first_retry_ms = _bounded(first_retry_ms)

    def silent(self, lasted_ms: float = 0.0) -> None:
        """No answer came: no route, a closed port, or a timeout after `lasted_ms`."""
        self._silence_ms += lasted_ms
        self._silences += 1
        self._fresh = self._doubted = False
        self._restarting = self._silence_ms < self._settings.restart_ms
        if not self._restarting:
            self._failures += 1

    def failed(self) -> None:
        """An attempt or a session failed without a time to come back."""
        self._failures += 1
        self._fresh = self._restarting = self._doubted = False

    def distrusted(self) -> None:
        """The gateway does not believe the credential."""
        self.failed()
        self._doubted = self._doubt_ms < self._settings.doubt_ms

    def refused(self, retry_ms: int | None, ticket: str | None) -> None:
        """An attempt was refused with a time, and perhaps a ticket for a slot."""
        if self._silences:
            self._heard()
        if retry_ms is not None and not 0 <= retry_ms <= TOLD_MS_MAX:
            retry_ms = _bounded(retry_ms)
        self._floor_ms = retry_ms
        self.ticket = ticket
        self._fresh = self._doubted = False
        if ticket is None:
            self._failures += 1

    def sent_away(self, retry_ms: int, ticket: str | None) -> None:
        """A `goaway`: connect again, in that slot."""
        self._floor_ms = _bounded(retry_ms)
        self.ticket = ticket

    def moved_on(self) -> None:
        """The device itself ended a good connection, because it needs another one."""
        self._fresh = True

    def closed(self, connected_ms: float) -> None:
        """A connection ended after `connected_ms`."""
        if connected_ms >= self._settings.stable_ms:
            self._failures = 0
            self._fresh = True
        elif self._failures or not self._fresh:
            self._failures += 1
            self._fresh = False
        else:
            # The first connection of a calm time broke early: one spread retry, then back off.
            self._fresh = True
            self._failures = 1

    def next_delay_ms(self) -> float:
        """The wait before the next attempt. Consumes the floor; the ticket stays until used."""
        floor_ms, self._floor_ms = self._floor_ms, None
        if floor_ms is not None and self.ticket is not None:
            return float(floor_ms)
        jitter_ms = self._jitter_ms() if floor_ms is None else self._beyond_ms(floor_ms)
        self._fresh = False
        if self._silences:
            self._silence_ms += jitter_ms
        if self._doubted:
            self._doubt_ms += jitter_ms
        return (floor_ms or 0) + jitter_ms

    def opened(self) -> None:
        """The attempt succeeded; a ticket is used up."""
        if self._silences:
            self._heard()
        self._doubt_ms, self._doubted = 0.0, False
        self.ticket = None

    def _heard(self) -> None:
        self._silence_ms = 0.0
        self._silences = 0
        self._restarting = False

    def _beyond_ms(self, floor_ms: float) -> float:
        """How long after a time that the gateway named without a ticket."""
        first_retry_ms = self._first_retry_ms
        spread_ms = max(first_retry_ms - floor_ms, min(first_retry_ms, floor_ms * _SPREAD_SHARE))
        grown_ms = self._grown_ms() if self._failures else 0.0
        return self._rng.random() * max(spread_ms, grown_ms)

    def _grown_ms(self) -> float:
        settings = self._settings
        return min(settings.cap_ms, settings.base_ms * 2.0 ** min(self._failures, 20))

    def _jitter_ms(self) -> float:
        settings, first_retry_ms = self._settings, self._first_retry_ms
        if self._fresh:
            return self._rng.random() * first_retry_ms
        if self._doubted:
            return self._rng.uniform(first_retry_ms / 2, first_retry_ms * 3 / 2)
        if self._restarting and not self._failures:
            soon_ms = settings.base_ms * 2.0 ** min(self._silences, 20)
            if self.ticket is not None and soon_ms < first_retry_ms:
                return self._rng.random() * soon_ms
            return self._rng.uniform(first_retry_ms / 2, first_retry_ms * 3 / 2)
        return self._rng.random() * max(first_retry_ms, self._grown_ms())


def _bounded(told_ms: int) -> int:
    return min(max(told_ms, 0), TOLD_MS_MAX)
