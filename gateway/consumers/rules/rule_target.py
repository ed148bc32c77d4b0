"""A rule as the target of a runner: it delivers what matched, and moves the position."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from gateway import tasks
from gateway.consumers.delivery.protocol import Delivery
from gateway.consumers.lease import Lease
from gateway.consumers.target import BEAT_S, Bury, Rejected
from gateway.events.event import Event
from gateway.events.hops import HOPS_MAX, hops_of
from gateway.events.position import Position
from gateway.events.rules import Rule

_SAVE_S: Final = 1.0
"""How often a position is stored that is only a shorter way back: nothing matched behind the last
one, or the target shows what arrived since. Storing each would sync each. It is due when a second
of the clock begins, so the rules of a process store theirs together."""


class RuleTarget:
    """Satisfies `Target`: the lease holds the position, the delivery takes the events."""

    def __init__(
        self,
        rule: Rule,
        lease: Lease,
        delivery: Delivery,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rule = rule
        self._lease = lease
        self._delivery = delivery
        self._clock = clock
        self._saved_in = clock() // _SAVE_S
        self._unsaved: Position | None = None
        self._handed: deque[tuple[Sequence[Event], Sequence[Event]]] = deque()

    async def open(self) -> None:
        await self._lease.open()
        await self._delivery.open()

    async def claim(self) -> tuple[bool, Position | None]:
        if not await self._lease.take():
            return False, None
        record = self._lease.record
        self._unsaved = None
        self._handed.clear()
        if record.position is not None:
            await self._alive(self._delivery.resume(record.position.seq, record.mark))
        return True, record.position

    async def _alive(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work and show signs of life meanwhile: it may take longer than a lease."""
        task = asyncio.create_task(work, name=f"rule-resume-{self._rule.name}")
        try:
            while not (await asyncio.wait({task}, timeout=BEAT_S))[0]:
                await self._lease.beat()
            task.result()
        finally:
            await tasks.end(task)

    async def beat(self) -> None:
        await self._lease.beat()

    async def begin(self, position: Position) -> None:
        await self._delivery.begin()
        await self._lease.save(position, self._delivery.mark)

    @property
    def ahead(self) -> int:
        return self._delivery.ahead

    def hand(self, events: Sequence[Event]) -> None:
        self._lease.check()
        within, beyond = _within_hops(events)
        self._delivery.send(within)
        self._handed.append((within, beyond))

    async def write(self, events: Sequence[Event], after: Position, bury: Bury) -> int:
        self._lease.check()
        within, beyond = self._handed.popleft() if self._handed else _within_hops(events)
        rejected = list(await self._delivery.deliver(within))
        rejected += map(_too_far, beyond)
        if rejected:
            rejected.sort(key=lambda each: each.event.position_seq)
            await bury(rejected)
        self._unsaved = after
        must = rejected or (events and not self._delivery.finds_again)
        if must or self._clock() // _SAVE_S > self._saved_in:
            await self._save()
        return len(rejected)

    async def _save(self) -> None:
        await self._lease.save(self._unsaved, self._delivery.mark)
        self._unsaved = None  # not before: if this is cancelled, `release` stores it
        self._saved_in = self._clock() // _SAVE_S

    async def release(self) -> None:
        position, self._unsaved = self._unsaved, None
        await self._lease.release(position, self._delivery.mark)

    async def close(self) -> None:
        await self._delivery.close()


def _within_hops(events: Sequence[Event]) -> tuple[Sequence[Event], Sequence[Event]]:
    """Events that may go on, and those that have passed too many rules."""
    beyond = [event for event in events if hops_of(event) >= HOPS_MAX - 1]
    if not beyond:
        return events, ()
    return [event for event in events if hops_of(event) < HOPS_MAX - 1], beyond


def _too_far(event: Event) -> Rejected:
    return Rejected(
        event, "hops", f"it has passed {hops_of(event)} rules: do they feed themselves?"
    )
