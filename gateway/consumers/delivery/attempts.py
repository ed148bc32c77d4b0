"""Targets that take one event a request: several at once, each repeated with jitter and a cap."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

from gateway.consumers.errors import AttemptFailed
from gateway.consumers.target import Rejected
from gateway.events.event import Event
from gateway.events.rules import Rule
from gateway.jitter import full_jitter_s

Attempt = Callable[[Event], Awaitable[None]]
"""One request. Raises AttemptFailed."""


def wait_s(rule: Rule, failures: int, asked_s: float, rng: random.Random) -> float:
    """How long to wait after so many failures: jitter within a ceiling that doubles.

    What the target asked for is a floor, up to the longest wait of all. The jitter comes on top, so
    that not all of its askers come back in one instant.
    """
    first_s, longest_s = rule.retry_ms / 1000, rule.retry_max_ms / 1000
    jitter_s = full_jitter_s(rng, failures - 1, first_s=first_s, max_s=longest_s)
    return min(asked_s, longest_s) + jitter_s


async def deliver_each(
    rule: Rule, events: Sequence[Event], attempt: Attempt, rng: random.Random
) -> list[Rejected]:
    """Deliver events side by side, those of one device one after the other.

    Returns once each has arrived or has been tried often enough.

    Returns:
        The events that cannot be sent, or were tried `rule.attempts` times, with what the last
        attempt met.
    """
    gate = asyncio.Semaphore(rule.concurrency)
    rejected: list[Rejected] = []

    async def deliver(event: Event) -> None:
        for failures in range(1, rule.attempts + 1):
            try:
                async with gate:
                    await attempt(event)
            except AttemptFailed as exc:
                if exc.final or failures == rule.attempts:
                    rejected.append(Rejected(event, exc.error, exc.detail))
                    return
                await asyncio.sleep(wait_s(rule, failures, exc.wait_s, rng))
            else:
                return

    async def deliver_in_order(of_device: Sequence[Event]) -> None:
        for event in of_device:
            await deliver(event)

    by_device: dict[tuple[str, str], list[Event]] = {}
    for event in events:
        by_device.setdefault((event.tenant, event.device), []).append(event)
    async with asyncio.TaskGroup() as group:
        for of_device in by_device.values():
            group.create_task(deliver_in_order(of_device))
    return rejected
