"""When to connect again: a pure policy, the same on a device, in a load test and in the simulator.

- First attempt after a lost connection: uniform in [0, first_retry_ms], which the gateway sets to
  what its fleet needs. No failure has happened yet.
- Failures: exponential with full jitter, drawn after the cap, so that late attempts stay spread
  (AWS, "Exponential Backoff and Jitter"; jitter drawn before the cap makes them all equal).
- A time from the gateway is a floor: later is allowed, earlier never. With a ticket it is exact.
- Failures are forgotten only after a connection that was stable for a while.
"""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BackoffSettings:
    """Times in milliseconds."""

    first_retry_ms: int = 2_000
    base_ms: int = 500
    cap_ms: int = 60_000
    stable_ms: int = 30_000


class ReconnectPolicy:
    """Decides the wait before each attempt. Knows no clock: callers say how long things took."""

    def __init__(self, settings: BackoffSettings, rng: random.Random) -> None:
        self._settings = settings
        self._rng = rng
        self._first_retry_ms = settings.first_retry_ms
        self._failures = 0
        self._floor_ms: int | None = None
        self._ticket: str | None = None
        self._fresh = True

    @property
    def failures(self) -> int:
        """Attempts in a row that led to no stable connection."""
        return self._failures

    @property
    def ticket(self) -> str | None:
        """The ticket to show at the next attempt."""
        return self._ticket

    @property
    def has_floor(self) -> bool:
        """Whether the next attempt has a time from the gateway."""
        return self._floor_ms is not None

    def told_first_retry(self, first_retry_ms: int) -> None:
        """The gateway said over how long its fleet spreads the first attempt."""
        self._first_retry_ms = first_retry_ms

    def failed(self) -> None:
        """An attempt failed without an answer: no route, timeout, a broken handshake."""
        self._failures += 1
        self._fresh = False

    def refused(self, retry_ms: int | None, ticket: str | None) -> None:
        """An attempt was refused with a time, and perhaps a ticket for a slot."""
        self._floor_ms = retry_ms
        self._ticket = ticket
        self._fresh = False
        if ticket is None:
            self._failures += 1

    def sent_away(self, retry_ms: int, ticket: str | None) -> None:
        """A `goaway`: connect again, in that slot."""
        self._floor_ms = retry_ms
        self._ticket = ticket

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
        if floor_ms is not None and self._ticket is not None:
            return float(floor_ms)
        if self._fresh:
            self._fresh = False
            jitter_ms = self._rng.uniform(0, self._first_retry_ms)
        else:
            settings = self._settings
            ceiling_ms = min(settings.cap_ms, settings.base_ms * 2 ** min(self._failures, 20))
            jitter_ms = self._rng.uniform(0, ceiling_ms)
        return (floor_ms or 0) + jitter_ms

    def opened(self) -> None:
        """The attempt succeeded; a ticket is used up."""
        self._ticket = None
