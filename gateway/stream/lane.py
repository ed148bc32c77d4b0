"""A publish lane: group commit for the devices hashed to it. Pure; no I/O, no clock of its own.

            submit           stage            next_batch             resolve: stored
  (device) --------> [queue] -------> [staged] ----------> in flight ----------------> settled
                        |                                 ^   |
                        |          next_batch             |   |  resolve: repeat
                        +---------------------------------+   v
                                                  ^------- [retry], before all else

Rules:
- At most one batch is in flight. Whatever arrives meanwhile is the next batch: small when quiet,
  large when busy, and no timer decides.
- When much waits behind an atomic batch, the next one is staged: all but its last message are sent
  ahead, for the server to parse and keep while it syncs the one in flight. Nothing of it is stored
  before its last message, the commit, which is sent when the one in flight is settled. A staged
  batch that the server may have lost is taken back and sent again under a new number; the server
  forgets the old one by itself (ADR-50).
- A device's messages are in one lane, in order, and a later batch starts only when the one before
  is settled. So order per device holds through any retry.
- An ambiguous answer (timeout, disconnect) repeats the batch with the same message ids; the
  server's duplicate detection makes that harmless. Nothing is given up for being slow.
- The server forgets ids after its duplicate window. What has been in doubt for half of it is looked
  up in the stream before it is repeated: it may be there.
- When a batch holds a duplicate, or was stored in part, its messages are settled one by one in
  rounds: plain publishes, at most one per device in flight, so that order holds there too.
"""

import enum
import itertools
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from msgspec import Struct

from gateway.stream.encoding import Envelope

_ATOMIC_MIN: Final = 16
"""A small atomic batch costs as much as so many plain publishes: besides its syncs, a store of its
own is made for it and removed. Measured with fsync: 2,000 msg/s then have a p50 of 2 ms, not 8."""
_FAST_MAX: Final = 1_000
"""A fast batch pays no syncs that more messages would share, and is settled message by message when
its answer is lost: the fewer the better."""
EAGER_MESSAGES: Final = 250
"""So many are worth a write of their own while more are being read."""
_LOOKUP_MAX: Final = 100
"""Messages looked up at once. The server holds 10,000 requests to its API for all who ask, drops
them all when there are more, and each is answered with a whole message."""
_DOUBT_SHARE: Final = 0.5
"""Of the duplicate window: a repeat sent until then is read by the server within the rest."""
_STAGED_MAX_S: Final = 5.0
"""A batch staged for longer is begun again: a server gives up one it hears nothing of (ADR-50)."""


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
    doubtful_since: float | None = None
    """Since when it may be stored without our knowing; None if it cannot be."""


class Kind(enum.Enum):
    """How a batch is published."""

    SINGLE = "single"
    ATOMIC = "atomic"
    FAST = "fast"
    ROUND = "round"
    LOOKUP = "lookup"  # not published: looked up in the stream


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
    size: int = 0
    """Bytes."""
    sent: int = 0
    """Messages, from the first, that were sent ahead."""
    complete: bool = False
    """It takes no more messages."""
    answers: dict[int, "Answer"] = field(default_factory=dict)
    """The answers so far, by place, if they come one by one."""

    @property
    def answered_one_by_one(self) -> bool:
        return self.kind in (Kind.ROUND, Kind.LOOKUP)


class Verdict(enum.Enum):
    """What an answer means for a message or a batch."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    PARTIAL = "partial"  # a duplicate inside an atomic batch, or a fast batch cut short
    AMBIGUOUS = "ambiguous"
    TOO_LARGE = "too_large"  # more messages than the server takes in a batch
    THROTTLED = "throttled"  # refused for now: a limit reached, no space, too many in flight
    REFUSED = "refused"  # never going to be stored: the message itself is the offence
    ABSENT = "absent"  # looked up, and not in the stream


RETRY_REASONS = (
    "partial",
    "batch_size",
    "timeout",
    "disconnected",
    "no_responders",
    "conflict",
    "absent",
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
    messages_max: int = 0
    """TOO_LARGE only: how many messages the server takes."""


Disposal = Callable[[Pending, str], Pending]
"""Turns a message that JetStream will never take into its dead letter."""


class Lane:
    """The state of one lane. The publisher drives it: submit, next_batch, resolve."""

    def __init__(
        self,
        *,
        batch_messages_max: int,
        batch_bytes_max: int,
        duplicate_window_s: float,
        dispose: Disposal,
    ) -> None:
        self.strategy = Strategy.PLAIN
        self._batch_messages_max = batch_messages_max
        self._batch_bytes_max = batch_bytes_max
        self._doubt_max_s = duplicate_window_s * _DOUBT_SHARE
        self._dispose = dispose
        self._queue: deque[Pending] = deque()
        self._retry: deque[Pending] = deque()
        self._staged: Batch | None = None
        self._careful = False
        self._number = 0
        self.in_flight: Batch | None = None
        self.failures = 0
        """Batches in a row that had to be repeated with nothing settled; for the backoff."""

    def __len__(self) -> int:
        """Messages held: waiting, to be repeated, or in flight."""
        batch = self.in_flight
        if batch is None or batch.kind is Kind.LOOKUP:
            return self.waiting
        return self.waiting + len(batch.items)

    @property
    def waiting(self) -> int:
        """Messages that the next batch can take."""
        staged = len(self._staged.items) if self._staged is not None else 0
        return len(self._queue) + len(self._retry) + staged

    def submit(self, items: Iterable[Pending]) -> None:
        self._queue.extend(items)

    def next_batch(self, now: float) -> tuple[Batch | None, list[Pending]]:
        """The batch to send now, if none is in flight and anything waits.

        Returns:
            The batch, and the messages dropped from the queue because a newer session of their
            device resends them.
        """
        if self.in_flight is not None:
            return None, []
        staged = self._staged
        if staged is not None and (
            self.strategy is not Strategy.ATOMIC or now - staged.started_at > _STAGED_MAX_S
        ):
            self.take_back()
        dropped: list[Pending] = []
        batch = self._new_batch(now)
        doubtful = self._doubtful(now)
        if doubtful:
            batch.items = doubtful  # which stay in their places to be repeated
            batch.kind = Kind.LOOKUP
        elif self._careful and self._retry:
            batch.items = self._take_round()
            batch.kind = Kind.ROUND
        elif self._retry:
            self._fill(batch, self._retry, dropped)
            batch.kind = self._kind(batch.items)
        else:
            self._careful = False
            if self._staged is not None:
                batch, self._staged = self._staged, None
                batch.started_at = now
            self._fill(batch, self._queue, dropped)
            if not batch.sent:
                batch.kind = self._kind(batch.items)
        if not batch.items:
            return None, dropped
        if batch.kind is Kind.ROUND:
            # A plain strategy: what does not fit this round waits, ahead of the queue.
            first, later = _one_per_device(batch.items)
            self._retry.extendleft(reversed(later))
            self._careful = bool(later)
            batch.items = first
        self.in_flight = batch
        return batch, dropped

    @property
    def can_stage(self) -> bool:
        """Whether so much waits behind the batch in flight that it is worth sending ahead."""
        return (
            len(self._queue) >= EAGER_MESSAGES
            and self.strategy is Strategy.ATOMIC
            and self.in_flight is not None
            and not (self._retry or self._careful or self.failures)
            and (self._staged is None or not self._staged.complete)
        )

    def stage(self, now: float) -> tuple[Batch | None, int, list[Pending]]:
        """Take from the queue what can be sent ahead, if `can_stage`.

        Returns:
            The batch it is part of, the place of the first message to send now (those up to
            `sent` are to be sent), and the messages dropped as in `next_batch`.
        """
        dropped: list[Pending] = []
        if not self.can_stage:
            return None, 0, dropped
        batch = self._staged or self._new_batch(now)
        batch.kind = Kind.ATOMIC
        first = batch.sent
        self._fill(batch, self._queue, dropped)
        if not batch.items:
            return None, 0, dropped
        batch.sent = len(batch.items) - 1  # the last one will be the commit
        self._staged = batch
        return batch, first, dropped

    def take_back(self) -> None:
        """The server may not have what was sent ahead: back to the queue with it."""
        if self._staged is not None:
            self._queue.extendleft(reversed(self._staged.items))
            self._staged = None

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
        elif answer.verdict is Verdict.TOO_LARGE:
            # By at least one, so that this ends whatever the server says.
            allowed = min(answer.messages_max, self._batch_messages_max - 1)
            self._batch_messages_max = max(1, allowed)
            self.take_back()
        else:
            self.failures += 1
            # A fast batch may be stored in part; its first duplicate would end a second one.
            self._careful = self._careful or batch.kind is Kind.FAST
            self.take_back()
            for item in items:
                _doubt(item, batch)
        if settled:
            self.failures = 0
        self._retry.extendleft(reversed(items))
        return settled

    def resolve_one(self, place: int, answer: Answer) -> list[Pending] | None:
        """One message of the round or look-up in flight was answered.

        Returns:
            None while answers are missing; with the last one, the messages settled.
        """
        batch = self.in_flight
        assert batch is not None
        assert batch.answered_one_by_one
        batch.answers[place] = answer
        if len(batch.answers) < len(batch.items):
            return None
        return self.finish_round(Answer(Verdict.AMBIGUOUS, "timeout"))

    def finish_round(self, missing: Answer) -> list[Pending]:
        """End the round or look-up in flight, taking `missing` for every answer that did not come.

        Returns:
            The messages now settled, in order.
        """
        batch = self._land()
        if batch.kind is Kind.LOOKUP:
            return self._sort_out(batch)
        settled: list[Pending] = []
        again: list[Pending] = []
        for place, item in enumerate(batch.items):
            answer = batch.answers.get(place, missing)
            if answer.verdict in (Verdict.STORED, Verdict.DUPLICATE):
                settled.append(item)
            elif answer.verdict is Verdict.REFUSED:
                again.append(self._dispose(item, answer.reason))
            else:
                _doubt(item, batch)
                again.append(item)
        self.failures = 0 if settled or not again else self.failures + 1
        if self.failures:
            self.take_back()
        self._careful = True
        self._retry.extendleft(reversed(again))
        return settled

    def _doubtful(self, now: float) -> list[Pending]:
        """What is to be repeated and may have been stored so long ago that its id is forgotten."""
        limit = now - self._doubt_max_s
        found = (
            item
            for item in self._retry
            if item.doubtful_since is not None and item.doubtful_since <= limit
        )
        return list(itertools.islice(found, _LOOKUP_MAX))

    def _sort_out(self, batch: Batch) -> list[Pending]:
        """What was looked up is settled, or is known to be missing, or is to be looked up again."""
        verdicts = {batch.items[place]: given.verdict for place, given in batch.answers.items()}
        settled: list[Pending] = []
        kept: deque[Pending] = deque()
        missing_since: dict[str, float] = {}
        for item in self._retry:
            verdict, since = verdicts.get(item), item.doubtful_since
            if verdict is Verdict.STORED and item.device not in missing_since:
                settled.append(item)
                continue
            if verdict is Verdict.ABSENT:
                since = batch.started_at  # what is still on its way may arrive after the look-up
            elif verdict is Verdict.STORED:
                # After the one before it, which was not there then: order holds in the stream.
                since = missing_since[item.device]
            item.doubtful_since = since
            missing_since[item.device] = batch.started_at if since is None else since
            kept.append(item)
        self._retry = kept
        # An answer of either kind is progress: thousands may be looked up, and none of them waits.
        answered = settled or Verdict.ABSENT in verdicts.values()
        self.failures = 0 if answered else self.failures + 1
        return settled

    def _new_batch(self, now: float) -> Batch:
        self._number += 1
        return Batch(self._number, Kind.SINGLE, [], now)

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
        small = len(items) < _ATOMIC_MIN and len({item.device for item in items}) == len(items)
        return Kind.ROUND if small else Kind.ATOMIC

    def _fill(self, batch: Batch, source: deque[Pending], dropped: list[Pending]) -> None:
        """From the front of `source` into `batch`: messages of one stream, up to its bounds."""
        items = batch.items
        messages_max = self._batch_messages_max
        if self.strategy is Strategy.FAST:
            messages_max = min(messages_max, _FAST_MAX)
        while source and not batch.complete:
            item = source[0]
            if item.owner.superseded:
                dropped.append(source.popleft())
                continue
            size = batch.size + item.size
            batch.complete = len(items) >= messages_max or (
                bool(items)
                and (
                    size > self._batch_bytes_max or item.envelope.stream != items[0].envelope.stream
                )
            )
            if not batch.complete:
                batch.size = size
                items.append(source.popleft())

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


def _doubt(item: Pending, batch: Batch) -> None:
    """The outcome of `item`, published with `batch`, is not known."""
    if item.doubtful_since is None:
        item.doubtful_since = batch.started_at
