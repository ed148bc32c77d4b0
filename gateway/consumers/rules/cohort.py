"""One reader of EVENTS and the rules that follow it: each event is decoded and matched once.

The rules of a cohort have the same filters. The reader gives each rule the events that match it, at
the pace that `events/pacing.py` allows; a rule that is too slow for the others is parted from them.
The last events are kept for a while, so that a rule which is a little behind can still join.
"""

import asyncio
import contextlib
import itertools
import random
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Protocol

import structlog
from msgspec import Struct

from gateway import tasks
from gateway.consumers.errors import TargetAway
from gateway.consumers.progress import Progress
from gateway.events.event import Event
from gateway.events.pacing import Load, has_room, leavers
from gateway.events.position import Position, StreamState, resume
from gateway.events.rule_index import RuleIndex
from gateway.events.rules import Rule
from gateway.stream.errors import StreamMissing
from gateway.stream.link.client import LinkClient
from gateway.stream.names import EVENTS
from gateway.stream.provisioning.inspection import message_id_at, stream_facts
from gateway.stream.reading.reader import Link, StartAt, StreamReader

_log = structlog.get_logger(__name__)

PORTION_EVENTS: Final = 1_000
PORTION_BYTES: Final = 2 << 20
TAIL_EVENTS: Final = 10_000
TAIL_BYTES: Final = 8 << 20
NEAR: Final = 10_000
"""Rules begin together if their positions are not further apart."""
_GATHER_S: Final = 0.2
_GATHERS_MAX: Final = 10
_MATCHED_AT_ONCE: Final = 200
_GIVEN_AT_ONCE: Final = 10
_LOOK_S: Final = 0.1
_BREATH_S: Final = 0.003


class Place(Struct, frozen=True):
    """Everything behind `position` is wanted; behind a position at 0, what came after `since`."""

    position: Position
    since: datetime | None = None


class Member(Protocol):
    """A rule, as its cohort sees it."""

    @property
    def rule(self) -> Rule:
        """What the events file says of it."""

    @property
    def progress(self) -> Progress:
        """How far it has come."""

    @property
    def load(self) -> Load:
        """What it was given and has not delivered."""

    def give(self, events: list[Event], size_bytes: int, last: Event) -> None:
        """Take events, perhaps none; the reader has come to `last`."""

    def part(self) -> None:
        """The cohort goes on without this rule."""

    def fail(self, failure: BaseException) -> None:
        """The reader has failed."""


class Cohort:
    """A reader that rules find by `fits`, and follow."""

    def __init__(
        self, number: int, rule: Rule, place: Place, waits_for: int, link: Link, rng: random.Random
    ) -> None:
        """
        Args:
            number: later cohorts have higher ones.
            rule: one of its rules.
            place: where it begins.
            waits_for: as many rules may be about to join.
            link: the connection to NATS.
            rng: source of jitter.
        """
        self.members: list[Member] = []
        self.subjects = rule.subjects
        self._number = number
        self._place = place
        self._waits_for = waits_for
        self._begun = False
        self._tail = _Tail(place)
        self._index: RuleIndex[int] | None = None
        self._freed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._reader: StreamReader[Event] = StreamReader(
            link,
            EVENTS,
            self.subjects,
            start=self._start,
            make=Event,
            room_messages=2 * PORTION_EVENTS,
            room_bytes=2 * PORTION_BYTES,
            rng=rng,
        )

    @property
    def rank(self) -> tuple[int, int]:
        """A rule moves to a cohort of higher rank: a larger or, of two equal ones, the older."""
        return len(self.members), -self._number

    @property
    def pending(self) -> int | None:
        """Events that the reader has not given to the rules; None before the server has said it."""
        reader = self._reader
        return reader.pending + len(reader) if reader.begun.is_set() else None

    def fits(self, place: Place) -> bool:
        """Whether a rule at this place can follow, and misses nothing."""
        mine = self._place
        if mine.position.created != place.position.created:
            return False
        if self._begun:
            return place.position.seq <= mine.position.seq and self._tail.reaches(place)
        return mine.since == place.since and abs(mine.position.seq - place.position.seq) <= NEAR

    def admit(self, member: Member, place: Place) -> None:
        """Let a rule follow, whose place fits."""
        self.members.append(member)
        self._index = None
        if not self._begun:
            if place.position.seq < self._place.position.seq:
                self._place, self._tail = place, _Tail(place)
            return
        behind = self._tail.behind(place.position.seq)
        if behind:
            matched = _Matched(1)
            matched.add(behind, RuleIndex({0: member.rule.when}))
            member.give(matched.events[0], matched.sizes[0], behind[-1])

    async def leave(self, member: Member) -> None:
        """Remove a rule. The reader ends with the last one."""
        self._forget(member)
        if not self.members:
            await tasks.end(self._task)

    def freed(self) -> None:
        """A member has delivered something."""
        self._freed.set()

    def launch(self, on_end: Callable[["Cohort"], None]) -> None:
        """Begin to read, until the last member has left or the reader fails."""
        self._task = asyncio.create_task(self._run(), name=f"rules-cohort-{self._number}")
        self._task.add_done_callback(lambda _task: on_end(self))

    async def _run(self) -> None:
        await self._gathered()
        self._begun = True
        side_by_side = [
            asyncio.create_task(self._reader.run(), name=f"rules-read-{self._number}"),
            asyncio.create_task(self._give_all(), name=f"rules-give-{self._number}"),
        ]
        try:
            done, _ = await asyncio.wait(side_by_side, return_when=asyncio.FIRST_COMPLETED)
            for failure in filter(None, [task.exception() for task in done]):
                for member in self.members:  # each rule reports it, and may try again
                    member.fail(failure)
        finally:
            await tasks.end(*side_by_side)
            await asyncio.gather(*side_by_side, return_exceptions=True)

    async def _gathered(self) -> None:
        """Wait for rules that begin at the same time, as long as they come."""
        for _ in range(_GATHERS_MAX):
            here = len(self.members)
            if here >= self._waits_for:
                return
            await asyncio.sleep(_GATHER_S)
            if len(self.members) == here:
                return

    async def _give_all(self) -> None:
        reader = self._reader
        created = self._place.position.created
        while True:
            events = await reader.gather(PORTION_EVENTS, PORTION_BYTES, 0.0)
            if events:
                last = events[-1]
                self._place = Place(Position(created, last.stream_seq, last.message_id))
                self._tail.add(events)
                await self._give(events)
            await self._room()

    async def _give(self, events: Sequence[Event]) -> None:
        """Give each member the events that match its rule.

        The loop turns in between: an answer of the target that waits for the CPU keeps the target
        waiting too.
        """
        index, members = self._matching(), tuple(self.members)
        matched = _Matched(len(members))
        for start in range(0, len(events), _MATCHED_AT_ONCE):
            matched.add(events[start : start + _MATCHED_AT_ONCE], index)
            await asyncio.sleep(0)
        last = events[-1]
        for start in range(0, len(members), _GIVEN_AT_ONCE):
            here = set(map(id, self.members))  # some may have left meanwhile
            for place in range(start, min(start + _GIVEN_AT_ONCE, len(members))):
                if id(members[place]) in here:
                    members[place].give(matched.events[place], matched.sizes[place], last)
            await asyncio.sleep(0)

    def _matching(self) -> RuleIndex[int]:
        if self._index is None:
            patterns = {place: each.rule.when for place, each in enumerate(self.members)}
            self._index = RuleIndex(patterns)
        return self._index

    async def _room(self) -> None:
        """Wait until the members have delivered enough, and part with those that do not."""
        loop = asyncio.get_running_loop()
        while self.members:
            loads = [each.load for each in self.members]
            for member in [self.members[place] for place in leavers(loads, loop.time())]:
                self._forget(member)
                member.part()
            if has_room([each.load for each in self.members]):
                return
            self._freed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._freed.wait()
                    await asyncio.sleep(_BREATH_S)  # others are about to finish: look once for all

    def _forget(self, member: Member) -> None:
        if member in self.members:
            self.members.remove(member)
            self._index = None
            self._freed.set()

    async def _start(self, client: LinkClient, accepted: int) -> StartAt:
        """Where the reader goes on, if the stream is still the one that it has read."""
        position = self._place.position
        id_there = None
        try:
            facts = await stream_facts(client, EVENTS)
            if position.seq and facts.first_seq <= position.seq <= facts.last_seq:
                id_there = await message_id_at(client, EVENTS, position.seq)
        except StreamMissing as exc:
            raise TargetAway(str(exc)) from exc
        stream = StreamState(facts.created, facts.first_seq, facts.last_seq)
        start = resume(position, stream, id_there)
        self._place = Place(position.within(stream), self._place.since)
        if not accepted:
            since = self._place.since
            return StartAt(start.seq) if since is None else StartAt(time=since)
        expired = facts.first_seq - (accepted + 1)
        if expired > 0:
            for member in self.members:
                member.progress.expired(expired, facts.first_seq)
        return StartAt(accepted + 1)


class _Tail:
    """The last portions of a reader: all events of its filters that are behind a sequence."""

    def __init__(self, place: Place) -> None:
        self._since = place.since
        self._after: int | None = None if place.since is not None else place.position.seq
        self._portions: deque[tuple[Sequence[Event], int]] = deque()
        self._count = 0
        self._bytes = 0

    def add(self, events: Sequence[Event]) -> None:
        if self._after is None:
            self._after = events[0].stream_seq - 1
        size_bytes = sum([len(event.data) + len(event.headers) for event in events])
        self._portions.append((events, size_bytes))
        self._count += len(events)
        self._bytes += size_bytes
        while self._count > TAIL_EVENTS or self._bytes > TAIL_BYTES:
            first, first_bytes = self._portions.popleft()
            self._count -= len(first)
            self._bytes -= first_bytes
            self._after = first[-1].stream_seq

    def reaches(self, place: Place) -> bool:
        """Whether all that is wanted at this place, and was read, is here."""
        if self._after is None or place.since is not None:
            return self._after is None and place.since == self._since
        return place.position.seq >= self._after

    def behind(self, seq: int) -> list[Event]:
        kept = itertools.chain.from_iterable(events for events, _ in self._portions)
        return [event for event in kept if event.stream_seq > seq]


class _Matched:
    """What the members of a cohort are given, by their places in the index."""

    def __init__(self, members: int) -> None:
        self.events: list[list[Event]] = [[] for _ in range(members)]
        self.sizes = [0] * members

    def add(self, events: Sequence[Event], index: RuleIndex[int]) -> None:
        """Match some more events."""
        matched, sizes = self.events, self.sizes
        matching, facts_of = index.matching, index.facts_of
        for event in events:
            size_bytes = len(event.data) + len(event.headers)
            for place in matching(facts_of(event)):
                matched[place].append(event)
                sizes[place] += size_bytes
