"""A publish lane: group commit for the devices hashed to it. Pure; no I/O, no clock of its own.

            submit                 next_batch               resolve: stored
  (device) --------> [ queue ] ----------------> in flight ----------------> settled
                        ^                            |
                        |      resolve: repeat       v
                        +------------------------ [ retry ]

Rules:
- At most one batch is in flight. Whatever arrives meanwhile is the next batch: small when quiet,
  large when busy, and no timer decides.
- A device's messages are in one lane, in order, and a later batch starts only when the one before
  is settled. So order per device holds through any retry.
- An ambiguous answer (timeout, disconnect) repeats the batch with the same message ids; the
  server's duplicate detection makes that harmless. Nothing is given up for being slow.
- When a batch holds a duplicate, or was stored in part, its messages are settled one by one in
  rounds: plain publishes, at most one per device in flight, so that order holds there too.
"""

import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from msgspec import Struct

from gateway.stream.encoding import Envelope

_ATOMIC_MIN: Final = 4


class Owner(Protocol):
    """Whose message it is: a device's session, as far as a lane is concerned."""

    superseded: bool
    """A newer session of the device took over and resends what is unacked: skip what is queued."""

    def stored(self, seq: int) -> None:
        """Every message up to and including `seq` is settled. Called once a batch."""

    def rejected(self, seq: int, error: str, detail: str) -> None:
        """The message `seq` is in the dead letters."""


class Pending(Struct, eq=False):
    """A message on its way into a stream."""

    owner: Owner
    device: str
    seq: int
    envelope: Envelope
    size: int
    reject: tuple[str, str] | None = None
    """`error` and `detail` if it goes to the dead letters."""


class Kind(enum.Enum):
    """How a batch is published."""

    SINGLE = "single"
    ATOMIC = "atomic"
    FAST = "fast"
    ROUND = "round"


class Strategy(enum.Enum):
    """How batches of several messages are published; chosen once, by what the server can do."""

    PLAIN = "plain"
    ATOMIC = "atomic"
    FAST = "fast"


@dataclass(slots=True, eq=False)
class Batch:
    number: int
    kind: Kind
    items: list[Pending]
    started_at: float
    answers: dict[int, "Answer"] = field(default_factory=dict)
    """Rounds only: the answers so far, by place."""


class Verdict(enum.Enum):
    """What an answer means for a message or a batch."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    PARTIAL = "partial"  # a duplicate inside an atomic batch, or a fast batch cut short
    AMBIGUOUS = "ambiguous"
    THROTTLED = "throttled"  # refused for now: a limit reached, no space, too many in flight
    REFUSED = "refused"  # never going to be stored: the message itself is the offence


RETRY_REASONS = (
    "partial",
    "timeout",
    "disconnected",
    "no_responders",
    "conflict",
    "limits",
    "error",
)
"""Why batches are repeated, as metric labels."""


@dataclass(frozen=True, slots=True)
class Answer:
    verdict: Verdict
    reason: str = ""
    stored_count: int = 0
    """PARTIAL only: how many messages, from the first, are known to be stored."""


Disposal = Callable[[Pending, str], Pending]
"""Turns a message that JetStream will never take into its dead letter."""


class Lane:
    """The state of one lane. The publisher drives it: submit, next_batch, resolve."""

    def __init__(
        self,
        *,
        batch_messages_max: int,
        batch_bytes_max: int,
        dispose: Disposal,
    ) -> None:
        self.strategy = Strategy.PLAIN
        self._batch_messages_max = batch_messages_max
        self._batch_bytes_max = batch_bytes_max
        self._dispose = dispose
        self._queue: deque[Pending] = deque()
        self._retry: deque[Pending] = deque()
        self._careful = False
        self._number = 0
        self.in_flight: Batch | None = None
        self.failures = 0
        """Batches in a row that had to be repeated with nothing settled; for the backoff."""

    def __len__(self) -> int:
        """Messages held: waiting, to be repeated, or in flight."""
        flying = len(self.in_flight.items) if self.in_flight is not None else 0
        return len(self._queue) + len(self._retry) + flying

    @property
    def waiting(self) -> int:
        """Messages that the next batch can take."""
        return len(self._queue) + len(self._retry)

    def submit(self, item: Pending) -> None:
        self._queue.append(item)

    def next_batch(self, now: float) -> tuple[Batch | None, list[Pending]]:
        """The batch to send now, if none is in flight and anything waits.

        Returns:
            The batch, and the messages dropped from the queue because a newer session of their
            device resends them.
        """
        if self.in_flight is not None:
            return None, []
        dropped: list[Pending] = []
        if self._careful and self._retry:
            items = self._take_round()
            kind = Kind.ROUND
        elif self._retry:
            items = self._take_run(self._retry, dropped)
            kind = self._kind(items)
        else:
            self._careful = False
            items = self._take_run(self._queue, dropped)
            kind = self._kind(items)
        if not items:
            return None, dropped
        if kind is Kind.ROUND:
            # A plain strategy: what does not fit this round waits, ahead of the queue.
            first, later = _one_per_device(items)
            self._retry.extendleft(reversed(later))
            self._careful = bool(later)
            items = first
        self._number += 1
        self.in_flight = Batch(self._number, kind, items, now)
        return self.in_flight, dropped

    def resolve(self, answer: Answer) -> list[Pending]:
        """The batch in flight was answered as a whole.

        Returns:
            The messages now settled, in order.
        """
        batch = self._land()
        if answer.verdict in (Verdict.STORED, Verdict.DUPLICATE):
            self.failures = 0
            return batch.items
        settled: list[Pending] = []
        items = batch.items
        if answer.verdict is Verdict.PARTIAL:
            settled = items[: answer.stored_count]
            items = items[answer.stored_count :]
            self._careful = True
        elif answer.verdict is Verdict.REFUSED:
            if len(items) == 1:
                items = [self._dispose(items[0], answer.reason)]
            self._careful = True  # find the one message that offends
        else:
            self.failures += 1
            # A fast batch may be stored in part; its first duplicate would end a second one.
            self._careful = self._careful or batch.kind is Kind.FAST
        if settled:
            self.failures = 0
        self._retry.extendleft(reversed(items))
        return settled

    def resolve_one(self, place: int, answer: Answer) -> list[Pending] | None:
        """One message of the round in flight was answered.

        Returns:
            None while answers are missing; with the last one, the messages settled.
        """
        batch = self.in_flight
        assert batch is not None
        assert batch.kind is Kind.ROUND
        batch.answers[place] = answer
        if len(batch.answers) < len(batch.items):
            return None
        return self.finish_round(Answer(Verdict.AMBIGUOUS, "timeout"))

    def finish_round(self, missing: Answer) -> list[Pending]:
        """End the round in flight, taking `missing` for every answer that did not come."""
        batch = self._land()
        settled: list[Pending] = []
        again: list[Pending] = []
        for place, item in enumerate(batch.items):
            answer = batch.answers.get(place, missing)
            if answer.verdict in (Verdict.STORED, Verdict.DUPLICATE):
                settled.append(item)
            elif answer.verdict is Verdict.REFUSED:
                again.append(self._dispose(item, answer.reason))
            else:
                again.append(item)
        self.failures = 0 if settled or not again else self.failures + 1
        self._careful = True
        self._retry.extendleft(reversed(again))
        return settled

    def _land(self) -> Batch:
        batch = self.in_flight
        assert batch is not None, "no batch is in flight"
        self.in_flight = None
        return batch

    def _kind(self, items: list[Pending]) -> Kind:
        if len(items) <= 1:
            return Kind.SINGLE
        if self.strategy is Strategy.PLAIN:
            return Kind.ROUND
        if self.strategy is Strategy.FAST:
            return Kind.FAST
        # An atomic batch pays about four syncs whatever its size; a few messages pay one each.
        small = len(items) < _ATOMIC_MIN and len({item.device for item in items}) == len(items)
        return Kind.ROUND if small else Kind.ATOMIC

    def _take_run(self, source: deque[Pending], dropped: list[Pending]) -> list[Pending]:
        """From the front of `source`: messages of one stream, up to the batch's bounds."""
        items: list[Pending] = []
        size = 0
        while source and len(items) < self._batch_messages_max:
            item = source[0]
            if item.owner.superseded:
                dropped.append(source.popleft())
                continue
            size += item.size
            if items and (
                size > self._batch_bytes_max or item.envelope.stream != items[0].envelope.stream
            ):
                break
            items.append(source.popleft())
        return items

    def _take_round(self) -> list[Pending]:
        taken = [self._retry.popleft() for _ in range(len(self._retry))]
        first, later = _one_per_device(taken)
        self._retry.extend(later)
        return first


def _one_per_device(items: list[Pending]) -> tuple[list[Pending], list[Pending]]:
    """Split into the first message of each device and all that come after."""
    first: list[Pending] = []
    later: list[Pending] = []
    seen: set[str] = set()
    for item in items:
        if item.device in seen:
            later.append(item)
        else:
            seen.add(item.device)
            first.append(item)
    return first, later
