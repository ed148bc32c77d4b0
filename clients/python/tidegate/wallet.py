"""The device's credential: asked for when needed, within a budget, and renewed before it expires.

A lifetime is the token's own span, counted by the monotonic clock from when the token was first
seen. The wall clock of a device may be years off.
"""

import asyncio
import logging
import random
from typing import Final

from tidegate.clock import Clock
from tidegate.credentials import CallBudget, CredentialProvider, check_token, token_span_s
from tidegate.errors import AttemptEnded, DeviceError

_log = logging.getLogger("tidegate.device")

_RENEW_SHARE: Final = (0.7, 0.9)
_RENEW_MIN_S: Final = 1.0
_CLAIM_STEP_S: Final = 1.0
"""Claims are mostly whole seconds, so a token may expire so much before its span ends."""
_SPREAD: Final = 0.3
"""A call that the budget delays waits up to this share longer, to spread the calls of a fleet."""
_SAME_TOKEN_WAIT_S: Final = 10.0
_SAME_TOKEN_WAIT_MAX_S: Final = 300.0


class ProviderFailed(AttemptEnded):
    """The provider raised. It is called again later."""


class Wallet:
    """One device's credential."""

    def __init__(self, provider: CredentialProvider, clock: Clock, rng: random.Random) -> None:
        self._provider = provider
        self._clock = clock
        self._rng = rng
        self._budget = CallBudget()
        self._token: str | None = None
        self._seen_at = 0.0
        self._refused: str | None = None
        self._learned_span_s: float | None = None
        self._same = 0

    @property
    def token(self) -> str:
        """The last token of the provider; empty before the first."""
        return self._token or ""

    def refused(self, why: str) -> None:
        """The gateway does not accept the token, or no longer accepts it."""
        self._refused = why or "refused"

    def expired(self, why: str) -> None:
        """The gateway closed a session because its token has expired. Now its span is known."""
        if self._token is not None and token_span_s(self._token) is None:
            self._learned_span_s = self._clock.monotonic() - self._seen_at
        self.refused(why)

    def believed(self) -> None:
        """The gateway accepted the token."""
        self._refused = None

    async def token_to_show(self) -> str:
        """The token for the next knock.

        While the budget does not allow a call, a refused token is shown again: the gateway may
        accept it meanwhile, for example because it has learnt the key.

        Raises:
            ProviderFailed: the provider raised.
            DeviceError: the provider gave up (`CredentialRefused`), or returned no token.
        """
        now = self._clock.monotonic()
        delay_s = self._budget.delay_s(now)
        if self._token is not None and (self._refused is None or delay_s > 0):
            return self._token
        if delay_s > 0:
            delay_s *= 1 + self._rng.uniform(0, _SPREAD)
            await self._clock.sleep_until(now + delay_s)
        return await self._ask(self._refused)

    async def renewed(self) -> str:
        """Wait until it is time to renew the token of an open session.

        Returns:
            A new token, never the same one.

        Raises:
            DeviceError: the provider gave up, or returned no token.
        """
        while True:
            await self._clock.sleep_until(self._clock.monotonic() + self._renewal_delay_s())
            now = self._clock.monotonic()
            await self._clock.sleep_until(now + self._budget.delay_s(now))
            last = self._token
            try:
                fresh = await self._ask(None)
            except ProviderFailed as exc:
                self._same += 1
                _log.warning("the credential was not renewed, trying again later: %s", exc)
                continue
            if fresh != last:
                return fresh
            self._same += 1

    def _renewal_delay_s(self) -> float:
        span_s = token_span_s(self.token) or self._learned_span_s
        if span_s is None:
            return _FOREVER_S  # the gateway reports when the token expires
        left_s = self._seen_at + span_s - _CLAIM_STEP_S - self._clock.monotonic()
        # At random within the last third, so that a fleet does not renew all at once.
        delay_s = max(_RENEW_MIN_S, left_s * self._rng.uniform(*_RENEW_SHARE))
        if self._same:
            wait_s = min(_SAME_TOKEN_WAIT_MAX_S, _SAME_TOKEN_WAIT_S * 2 ** min(self._same - 1, 10))
            delay_s = max(delay_s, wait_s * self._rng.uniform(1 - _SPREAD, 1 + _SPREAD))
        return delay_s

    async def _ask(self, refused: str | None) -> str:
        self._budget.take(self._clock.monotonic())
        try:
            token = await self._provider(refused)
        except DeviceError:
            raise
        except asyncio.CancelledError as exc:
            if _is_own_cancellation():
                raise
            raise ProviderFailed("the credential provider was cancelled") from exc
        except Exception as exc:  # the provider is the application's code: it may raise anything
            raise ProviderFailed(f"the credential provider raised {type(exc).__name__}") from exc
        token = check_token(token)
        if token != self._token:
            self._token, self._seen_at, self._same = token, self._clock.monotonic(), 0
        return token


_FOREVER_S: Final = 10 * 366 * 86_400.0


def _is_own_cancellation() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
