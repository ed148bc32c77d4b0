"""Rules that read together: which cohort a rule follows, and what it was given and not delivered.

    seat: a cohort that can give everything behind the rule's position, or a new one
      |
      v
    member of a cohort --- too slow for it (`events/pacing.py`) ---> apart, with its queue
      ^                                                                  |
      +------------------ seat, once the queue is empty -----------------+

A rule that was apart begins a cohort of its own at its position. A member moves to a larger cohort
as soon as that one can give it everything behind its position. So a rule which has caught up shares
a reader again, and rules which lag at one place share one too.
"""

import asyncio
import contextlib
import itertools
import random
from collections import Counter, deque
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import nats.errors
import structlog

from gateway.consumers.errors import TargetAway
from gateway.consumers.progress import Progress
from gateway.consumers.reading import Portion
from gateway.consumers.rules.cohort import Cohort, Place
from gateway.events.event import Event
from gateway.events.pacing import Load
from gateway.events.position import Position
from gateway.events.rules import Rule
from gateway.stream.reading.reader import Link

_log = structlog.get_logger(__name__)

IDLE_S: Final = 1.0
"""After so long without an event of its own, a rule's position moves to where the reader is."""


class SharedReaders:
    """All readers of the rules of one process."""

    def __init__(self, rules: Sequence[Rule], link: Link, rng: random.Random) -> None:
        """
        Args:
            rules: all that run in this process.
            link: the connection to NATS.
            rng: source of jitter.
        """
        self._link = link
        self._rng = rng
        self._expected = Counter(rule.subjects for rule in rules)
        self._cohorts: list[Cohort] = []
        self._numbers = itertools.count()

    def reading(self, rule: Rule, progress: Progress) -> "SharedReading":
        """The reading of one rule."""
        return SharedReading(rule, progress, self._link, self)

    def seat(self, member: "SharedReading", place: Place, *, first: bool) -> Cohort:
        """The cohort that a rule follows from a place on.

        Args:
            member: the rule.
            place: everything behind it is wanted.
            first: whether the rule has just begun, so that others may be about to.
        """
        fitting = [each for each in self._of(member.rule) if each.fits(place)]
        if fitting:
            cohort = max(fitting, key=lambda each: each.rank)
        else:
            rule, number = member.rule, next(self._numbers)
            waits_for = self._expected[rule.subjects] if first else 0
            cohort = Cohort(number, rule, place, waits_for, self._link, self._rng)
            self._cohorts.append(cohort)
            cohort.launch(self._cohorts.remove)
        cohort.admit(member, place)
        return cohort

    def others(self, rule: Rule, now: Cohort) -> bool:
        """Whether there are further cohorts with the filters of a rule."""
        return len(self._cohorts) > 1 and any(each is not now for each in self._of(rule))

    def has_better(self, rule: Rule, now: Cohort, place: Place) -> bool:
        """Whether a larger cohort can give everything behind the place."""
        return any(each.rank > now.rank and each.fits(place) for each in self._of(rule))

    def _of(self, rule: Rule) -> list[Cohort]:
        return [each for each in self._cohorts if each.subjects == rule.subjects and each.members]


class SharedReading:
    """One rule's way through the stream. Satisfies `Reading`, and `Member` of cohorts."""

    def __init__(self, rule: Rule, progress: Progress, link: Link, readers: SharedReaders) -> None:
        """
        Args:
            rule: its section of the events file.
            progress: where it stands.
            link: the connection to NATS.
            readers: of the process.
        """
        self.rule = rule
        self.progress = progress
        self.load = Load()
        self._link = link
        self._readers = readers
        self._cohort: Cohort | None = None
        self._queue: deque[tuple[Portion, int]] = deque()
        self._under_way: deque[Load] = deque()
        self._passed: Event | None = None
        self._arrived = asyncio.Event()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def pending(self) -> int | None:
        behind = self._cohort.pending if self._cohort is not None else None
        return behind + self.load.events if behind is not None else None

    async def run(self) -> None:
        client = await self._link.wait_up()
        progress = self.progress
        try:
            await progress.start(client, 0)
        except (nats.errors.Error, TimeoutError) as exc:
            raise TargetAway(f"the stream does not answer: {exc or type(exc).__name__}") from exc
        assert progress.position is not None
        since = self.rule.start if not progress.seq else None
        place = Place(progress.position, since if isinstance(since, datetime) else None)
        self._cohort = self._readers.seat(self, place, first=True)
        await self._failed

    async def gather(self, events_max: int) -> Portion:
        while not self._queue:
            await self._move()
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_S):
                    await self._arrived.wait()
            passed = self._passed
            if not self._queue and passed is not None and passed.stream_seq > self.progress.seq:
                self._under_way.append(Load())
                return Portion([], passed)
        return self._taken(events_max)

    def processed(self) -> None:
        done, load = self._under_way.popleft(), self.load
        if done.events:
            load.events -= done.events
            load.size_bytes -= done.size_bytes
            load.moved_at = asyncio.get_running_loop().time()
            if self._cohort is not None:
                self._cohort.freed()

    async def close(self) -> None:
        if self._failed.done() and not self._failed.cancelled():
            self._failed.exception()  # heard, if nobody waited for it any more
        cohort, self._cohort = self._cohort, None
        if cohort is not None:
            await cohort.leave(self)

    # What a cohort calls

    def give(self, events: list[Event], size_bytes: int, last: Event) -> None:
        """Take events, perhaps none; the reader has come to `last`."""
        passed = self._passed
        after = passed.stream_seq if passed is not None else self.progress.seq
        if last.stream_seq <= after:
            return
        self._passed = last
        if events and events[0].stream_seq <= after:
            events = [event for event in events if event.stream_seq > after]
        if not events:
            return
        load = self.load
        if not load.events:
            load.moved_at = asyncio.get_running_loop().time()
        load.events += len(events)
        load.size_bytes += size_bytes
        self._queue.append((Portion(events, last), size_bytes))
        self._arrived.set()

    def part(self) -> None:
        """The cohort goes on without this rule."""
        self._cohort = None
        _log.info("rule_reads_alone", rule=self.rule.name, waiting=self.load.events)

    def fail(self, failure: BaseException) -> None:
        """The reader has failed."""
        if not self._failed.done():
            self._failed.set_exception(failure)

    # Its queue

    def _taken(self, events_max: int) -> Portion:
        queue = self._queue
        first, size_bytes = queue.popleft()
        events, last = first.events, first.last
        if len(events) > events_max:
            taken, left = events[:events_max], events[events_max:]
            taken_bytes = size_bytes * events_max // len(events)
            queue.appendleft((Portion(left, last), size_bytes - taken_bytes))
            events, last, size_bytes = taken, taken[-1], taken_bytes
        while queue and len(events) + len(queue[0][0].events) <= events_max:
            more, more_bytes = queue.popleft()
            events, last = events + more.events, more.last
            size_bytes += more_bytes
        self._under_way.append(Load(len(events), size_bytes))
        if not queue and self._passed is not None:
            last = self._passed
        return Portion(events, last)

    async def _move(self) -> None:
        """With an empty queue: to a cohort if it has none, or to a larger one."""
        now, passed, position = self._cohort, self._passed, self.progress.position
        if now is None and passed is None:
            return  # `run` has not found a cohort yet
        if now is not None and not self._readers.others(self.rule, now):
            return
        if position is None or not position.seq:
            return
        if passed is not None:
            position = Position(position.created, passed.stream_seq, passed.message_id)
        place = Place(position)
        if now is not None:
            if not self._readers.has_better(self.rule, now, place):
                return
            self._cohort = None
            await now.leave(self)
        self._cohort = self._readers.seat(self, place, first=False)
