"""Reconnect policies to compare: what fleets do today, and what Tidegate's client does.

Each is pure and answers one question: how long to wait before the next attempt. The ticket policy
is the reference client's own object. The others are common practice (AWS, "Exponential Backoff and
Jitter").
"""

import random
from collections.abc import Callable
from typing import Final, Protocol

from tidegate.backoff import BackoffSettings, ReconnectPolicy


class Policy(Protocol):
    """When to knock again. Times in milliseconds."""

    @property
    def ticket(self) -> str | None:
        """The ticket to show, if any."""

    def told_first_retry(self, first_retry_ms: int) -> None: ...

    def silent(self, lasted_ms: float = 0.0) -> None: ...

    def failed(self) -> None: ...

    def distrusted(self) -> None: ...

    def refused(self, retry_ms: int | None, ticket: str | None) -> None: ...

    def closed(self, connected_ms: float) -> None: ...

    def opened(self) -> None: ...

    def next_delay_ms(self) -> float: ...


class Unhinted:
    """A policy that knows only whether an attempt failed, and no hints of the gateway."""

    ticket: str | None = None

    def __init__(self, delay: Callable[[int, float], float]) -> None:
        """
        Args:
            delay: milliseconds to wait, from the failures in a row and the last wait.
        """
        self._delay = delay
        self._failures = 0
        self._last_ms = 0.0

    def told_first_retry(self, first_retry_ms: int) -> None:
        pass

    def silent(self, lasted_ms: float = 0.0) -> None:
        del lasted_ms
        self._failures += 1

    def failed(self) -> None:
        self._failures += 1

    def distrusted(self) -> None:
        self._failures += 1

    def refused(self, retry_ms: int | None, ticket: str | None) -> None:
        del retry_ms, ticket
        self._failures += 1

    def closed(self, connected_ms: float) -> None:
        del connected_ms
        self._failures = 0
        self._last_ms = 0.0

    def opened(self) -> None:
        self._failures = 0

    def next_delay_ms(self) -> float:
        self._last_ms = self._delay(self._failures, self._last_ms)
        return self._last_ms


class RetryAfter(ReconnectPolicy):
    """Honours the time in whole seconds, as `Retry-After` has it, and knows no tickets."""

    def refused(self, retry_ms: int | None, ticket: str | None) -> None:
        del ticket
        whole_ms = None if retry_ms is None else -(-retry_ms // 1000) * 1000
        super().refused(whole_ms, None)

    def next_delay_ms(self) -> float:
        """Wait for the time that was given and a little jitter, without a backoff of its own."""
        if self.has_floor:
            floor_ms, self._floor_ms = self._floor_ms or 0, None
            return floor_ms + self._rng.uniform(0, 500)
        return super().next_delay_ms()


_BASE_MS: Final = 1_000.0
_CAP_MS: Final = 60_000.0


def _ceiling_ms(failures: int) -> float:
    return min(_CAP_MS, _BASE_MS * 2.0 ** min(failures, 16))


def make_policy(name: str, rng: random.Random, *, first_retry_ms: int = 2_000) -> Policy:
    """A new policy for one device.

    Raises:
        KeyError: no policy is called `name`.
    """
    return maker_of(name, rng, first_retry_ms=first_retry_ms)()


def maker_of(
    name: str, rng: random.Random, *, first_retry_ms: int = 2_000
) -> Callable[[], Policy]:  # fmt: skip
    """What makes such policies for the devices of a fleet.

    Raises:
        KeyError: no policy is called `name`.
    """
    settings = BackoffSettings(first_retry_ms=first_retry_ms)
    makers: dict[str, Callable[[], Policy]] = {
        "ticket": lambda: ReconnectPolicy(settings, rng),
        "retry-after": lambda: RetryAfter(settings, rng),
        "full-jitter": lambda: Unhinted(lambda n, _: rng.uniform(0, _ceiling_ms(n))),
        "equal-jitter": lambda: Unhinted(
            lambda n, _: _ceiling_ms(n) / 2 + rng.uniform(0, _ceiling_ms(n) / 2)
        ),
        "decorrelated": lambda: Unhinted(
            lambda _, last: min(_CAP_MS, rng.uniform(_BASE_MS, max(_BASE_MS, last * 3)))
        ),
        # Section 7.2.3: a random delay of up to 5 s at first, then truncated binary exponential.
        "rfc6455": lambda: Unhinted(
            lambda n, _: rng.uniform(0, 5_000) if n == 0 else min(_CAP_MS, 5_000 * 2.0**n)
        ),
        "fixed": lambda: Unhinted(lambda _n, _last: _BASE_MS),
        "none": lambda: Unhinted(lambda _n, _last: 0.0),
    }
    return makers[name]


POLICIES: Final = (
    "ticket",
    "retry-after",
    "full-jitter",
    "equal-jitter",
    "decorrelated",
    "rfc6455",
    "fixed",
    "none",
)
