"""Replays stored events into a subject of NATS: `tidegate tail --to nats:<subject> --speed N`.

It delivers as a rule does, in each device's order, in atomic batches where the target's stream
allows them. Each replay has a name of its own in the ids, so two replays of one range are two
replays, and within one of them an event arrives once also if its answer was lost.
"""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

from gateway.consumers.delivery.batch_writer import BATCH_MESSAGES_MAX, BatchWriters
from gateway.consumers.delivery.nats_delivery import NatsDelivery
from gateway.consumers.errors import TargetAway
from gateway.consumers.target import Rejected
from gateway.events.destinations import NatsDestination
from gateway.events.event import Event
from gateway.events.patterns import Pattern
from gateway.events.replaying import Pace
from gateway.events.rules import Rule
from gateway.jitter import full_jitter_s
from gateway.stream.reading.reader import Link

_ATTEMPTS_MAX: Final = 10
_RETRY_S: Final = 0.2
_RETRY_MAX_S: Final = 5.0


class Copy:
    """One replay into one subject."""

    def __init__(
        self,
        link: Link,
        destination: NatsDestination,
        pace: Pace,
        rng: random.Random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """
        Args:
            link: of a user who may publish to the subject.
            destination: the subject.
            pace: when events are due.
            rng: source of jitter.
            sleep: waits for an event to be due.
        """
        self.name = f"replay-{secrets.token_hex(4)}"
        rule = Rule(name=self.name, when=Pattern(()), to=destination)
        self._link = link
        self._pace = pace
        self._rng = rng
        self._sleep = sleep
        self._delivery = NatsDelivery(rule, destination, link, _may_write, BatchWriters())
        self.sent = 0
        self.rejected: list[Rejected] = []
        """What the target's stream never takes."""

    async def run(self, events: AsyncIterator[Event]) -> None:
        """Deliver events when they are due.

        Raises:
            TargetRefused: the target is none for replays: EVENTS would read it.
            TargetAway: NATS does not answer, tried again and again.
        """
        await self._link.wait_up()
        await self._delivery.open()
        await self._delivery.begin()
        first = 0
        batch: list[Event] = []
        async for event in events:
            first = first or event.stream_seq
            if batch and (
                len(batch) == BATCH_MESSAGES_MAX or self._pace.wait_s(event.stored_at_ns) > 0
            ):
                await self._deliver(batch, first - 1)
                batch = []
            wait_s = self._pace.wait_s(event.stored_at_ns)
            if wait_s:
                await self._sleep(wait_s)
            batch.append(event)
        if batch:
            await self._deliver(batch, first - 1)

    async def _deliver(self, batch: Sequence[Event], after_seq: int) -> None:
        failures = 0
        while True:
            try:
                if failures:
                    await self._link.wait_up()
                    await self._delivery.open()
                    await self._delivery.resume(after_seq, self._delivery.mark)
                rejected = await self._delivery.deliver(batch)
            except TargetAway:
                failures += 1
                if failures == _ATTEMPTS_MAX:
                    raise
                await asyncio.sleep(
                    full_jitter_s(self._rng, failures, first_s=_RETRY_S, max_s=_RETRY_MAX_S)
                )
            else:
                self.rejected += rejected
                self.sent += len(batch) - len(rejected)
                return


def _may_write() -> None:
    """A replay has no lease: no process takes over from it."""
