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
- The server forgets ids after its duplicate window. What was last known not to be stored half a
  window ago is looked up in the stream before it is published, for the first time or again
  (`standing.py` has the rule). A duplicate that this node did not publish before is compared with
  what is stored: the seq may have been given twice. Meanwhile all messages of that device wait
  aside, in order, and the lane goes on with the others.
- When a batch holds a duplicate, or was stored in part, its messages are settled one by one in
  rounds: plain publishes, at most one per device in flight, so that order holds there too.
"""

import enum
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from msgspec import Struct

from gateway.stream.encoding import SEQ_REUSED, Envelope
from gateway.stream.standing import DOUBT_SHARE, Standing

_ATOMIC_MIN: Final = 16
"""A small atomic batch costs as much as so many plain publishes: besides its syncs, a store of its
own is made for it and removed. Measured with fsync: 2,000 msg/s then have a p50 of 2 ms, not 8."""
_FAST_MAX: Final = 1_000
"""A fast batch pays no syncs that more messages would share, and is settled message by message when
its answer is lost: the fewer the better."""
EAGER_MESSAGES: Final = 250
"""So many are worth a write of their own while more are being read."""
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
    standing: Standing
    seq: int
    envelope: Envelope
    size: int
    absent_at: float
    """The last moment at which it is known not to have been stored."""
    reject: tuple[str, str] | None = None
    """`error` and `detail` if it goes to the dead letters."""
    repeated: bool = False
    """This node published it before, and does not know what became of it."""


class Question(Struct, eq=False):
    """What the stream is asked about the first of the messages of a device that wait aside."""

    items: deque[Pending]
    stored_at: int | None = None
    """Compare the first message with the one at this stream sequence. None: how far has its outbox
    come?"""

    @property
    def device(self) -> str:
        """Whose messages wait."""
        return self.items[0].standing.device


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
        return self.kind is Kind.ROUND


class Verdict(enum.Enum):
    """What an answer means for a message or a batch."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    PARTIAL = "partial"  # a duplicate inside an atomic batch, or a fast batch cut short
    AMBIGUOUS = "ambiguous"
    TOO_LARGE = "too_large"  # more messages than the server takes in a batch
    THROTTLED = "throttled"  # refused for now: a limit reached, no space, too many in flight
    REFUSED = "refused"  # never going to be stored: the message itself is the offence


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
    stored_at: int = 0
    """DUPLICATE only: the stream sequence of the message that was there first."""


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
        self._doubt_max_s = duplicate_window_s * DOUBT_SHARE
        self._dispose = dispose
        self._queue: deque[Pending] = deque()
        self._retry: deque[Pending] = deque()
        self._aside: dict[str, Question] = {}
        self._unasked: list[Question] = []
        self._unsure: set[Standing] = set()
        self._staged: Batch | None = None
        self._careful = False
        self._number = 0
        self.in_flight: Batch | None = None
        self.failures = 0
        """Batches in a row that had to be repeated with nothing settled; for the backoff."""

    def __len__(self) -> int:
        """Messages held: waiting, to be repeated, aside, or in flight."""
        in_flight = len(self.in_flight.items) if self.in_flight is not None else 0
        return self.waiting + in_flight + sum(len(each.items) for each in self._aside.values())

    @property
    def waiting(self) -> int:
        """Messages that the next batch can take."""
        staged = len(self._staged.items) if self._staged is not None else 0
        return len(self._queue) + len(self._retry) + staged

    @property
    def asking(self) -> int:
        """Devices whose messages wait until the stream has answered."""
        return len(self._aside)

    def submit(self, items: Iterable[Pending]) -> None:
        self._queue.extend(items)

    def distrust(self, standing: Standing) -> None:
        """Messages of this outbox may be repeats: publish them so that duplicates show."""
        self._unsure.add(standing)

    def next_batch(self, now: float) -> tuple[Batch | None, list[Pending]]:
        """The batch to send now, if none is in flight and anything waits.

        Returns:
            The batch, and the messages dropped from the queue because a newer session of their
            device resends them. Questions may have come up: see `take_questions`.
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
        if self._careful and self._retry:
            batch.items = self._take_round(now, dropped)
            batch.kind = Kind.ROUND
        elif self._retry:
            self._fill(batch, self._retry, dropped)
            batch.kind = self._kind(batch.items)
        if not batch.items and not self._retry:
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

    def take_questions(self) -> list[Question]:
        """What the stream is to be asked now. Each is answered by `found` or `compared`."""
        questions, self._unasked = self._unasked, []
        return questions

    def found(self, question: Question, seq: int, asked_at: float) -> list[Pending]:
        """The stream was asked how far an outbox has come, at `asked_at`: up to `seq`.

        Returns:
            The messages now settled, in order.
        """
        standing = question.items[0].standing
        standing.found(seq, asked_at)
        settled: list[Pending] = []
        for item in question.items:
            if item.standing is standing and item.absent_at < asked_at:
                if item.seq <= seq:
                    settled.append(item)
                else:
                    item.absent_at = asked_at
        self._put_back(question, set(settled))
        return settled

    def compared(self, question: Question, *, same: bool) -> list[Pending]:
        """The first message of `question` was compared with the one stored under its id.

        Returns:
            The messages now settled.
        """
        first = question.items[0]
        if not same:
            question.items[0] = self._dispose(first, SEQ_REUSED)
        settled = [first] if same else []
        self._put_back(question, set(settled))
        return settled

    def _put_back(self, question: Question, settled: set[Pending]) -> None:
        """The stream has answered: what is not settled goes on, ahead of all else."""
        del self._aside[question.device]
        self.failures = 0
        left = [item for item in question.items if item not in settled]
        if left:
            self.take_back()
            self._retry.extendleft(reversed(left))

    @property
    def can_stage(self) -> bool:
        """Whether so much waits behind the batch in flight that it is worth sending ahead."""
        return (
            len(self._queue) >= EAGER_MESSAGES
            and self.strategy is Strategy.ATOMIC
            and self.in_flight is not None
            and not (self._retry or self._careful or self.failures or self._aside)
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
        self._fill(batch, self._queue, dropped, ahead=True)
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
        items = batch.items
        if answer.verdict is Verdict.STORED:
            self.failures = 0
            return items
        settled: list[Pending] = []
        if answer.verdict is Verdict.DUPLICATE:
            self.failures = 0
            if _ours(items[0]):
                return items
            self._set_aside(Question(deque(items), answer.stored_at))
            items = []
        elif answer.verdict is Verdict.PARTIAL:
            settled = items[: answer.stored_count]
            items = items[answer.stored_count :]
            self._careful = True
            if batch.kind is Kind.FAST:
                _repeat(items)  # a fast batch is stored as it comes
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
            _repeat(items)
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
        assert batch.answered_one_by_one
        batch.answers[place] = answer
        if len(batch.answers) < len(batch.items):
            return None
        return self.finish_round(Answer(Verdict.AMBIGUOUS, "timeout"))

    def finish_round(self, missing: Answer) -> list[Pending]:
        """End the round in flight, taking `missing` for every answer that did not come.

        Returns:
            The messages now settled, in order.
        """
        batch = self._land()
        settled: list[Pending] = []
        again: list[Pending] = []
        asked = False
        for place, item in enumerate(batch.items):
            answer = batch.answers.get(place, missing)
            duplicate = answer.verdict is Verdict.DUPLICATE
            if answer.verdict is Verdict.STORED or (duplicate and _ours(item)):
                settled.append(item)
            elif duplicate:
                self._set_aside(Question(deque([item]), answer.stored_at))
                asked = True
            elif answer.verdict is Verdict.REFUSED:
                again.append(self._dispose(item, answer.reason))
            else:
                item.repeated = True
                again.append(item)
        self.failures = 0 if settled or asked or not again else self.failures + 1
        if self.failures:
            self.take_back()
        self._careful = True
        self._retry.extendleft(reversed(again))
        return settled

    def _set_aside(self, question: Question) -> None:
        """Its device's messages wait from now on, until the stream has answered."""
        self._aside[question.device] = question
        self._unasked.append(question)
        # What was sent ahead may hold later messages of this device.
        self.take_back()

    def _waits(self, item: Pending, limit: float, taken: list[Pending]) -> bool | None:
        """Whether `item` must wait aside, and does so now.

        Args:
            item: about to be published.
            limit: what was last known to be absent at that time or before is looked up first.
            taken: what is published with it.

        Returns:
            None if it must, but messages of its device in `taken` have to be settled first.
        """
        question = self._aside.get(item.standing.device)
        if question is not None:
            question.items.append(item)
            return True
        if item.absent_at > limit:
            return False
        if any(other.standing.device == item.standing.device for other in taken):
            return None
        self._set_aside(Question(deque([item])))
        return True

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
        if self.strategy is Strategy.FAST and not self._may_repeat(items):
            return Kind.FAST
        devices = {item.standing.device for item in items}
        small = len(items) < _ATOMIC_MIN and len(devices) == len(items)
        return Kind.ROUND if small else Kind.ATOMIC

    def _may_repeat(self, items: list[Pending]) -> bool:
        """Whether duplicates among `items` must show, which fast ingest passes over in silence."""
        if self._unsure:
            self._unsure = {each for each in self._unsure if each.unsure}
        return bool(self._unsure) and any(item.standing in self._unsure for item in items)

    def _fill(
        self, batch: Batch, source: deque[Pending], dropped: list[Pending], *, ahead: bool = False
    ) -> None:
        """From the front of `source` into `batch`: messages of one stream, up to its bounds.

        Args:
            batch: to be filled.
            source: the queue or what is to be repeated.
            dropped: takes what a newer session resends.
            ahead: stop before a message that must be looked up, instead of setting it aside.
        """
        items, aside = batch.items, self._aside
        messages_max, bytes_max = self._batch_messages_max, self._batch_bytes_max
        if self.strategy is Strategy.FAST:
            messages_max = min(messages_max, _FAST_MAX)
        limit = batch.started_at - self._doubt_max_s
        size = batch.size
        stream = items[0].envelope.stream if items else ""
        while source and not batch.complete:
            item = source[0]
            if item.owner.superseded:
                dropped.append(source.popleft())
                continue
            if aside or item.absent_at <= limit:
                waits = None if ahead else self._waits(item, limit, items)
                if waits:
                    source.popleft()
                    continue
                if waits is None:
                    batch.complete = True
                    break
            size += item.size
            if not items:
                stream = item.envelope.stream
            elif len(items) >= messages_max or size > bytes_max or item.envelope.stream != stream:
                batch.complete = True
                break
            batch.size = size
            items.append(source.popleft())

    def _take_round(self, now: float, dropped: list[Pending]) -> list[Pending]:
        """The first message of each device that has any to be repeated."""
        limit = now - self._doubt_max_s
        taken, self._retry = self._retry, deque()
        first: list[Pending] = []
        seen: set[str] = set()
        for item in taken:
            if item.owner.superseded:
                dropped.append(item)
            elif item.standing.device in seen:
                self._retry.append(item)
            elif not self._waits(item, limit, []):
                seen.add(item.standing.device)
                first.append(item)
        return first


def _one_per_device(items: list[Pending]) -> tuple[list[Pending], list[Pending]]:
    """Split into the first message of each device and all that come after."""
    first: list[Pending] = []
    later: list[Pending] = []
    seen: set[str] = set()
    for item in items:
        if item.standing.device in seen:
            later.append(item)
        else:
            seen.add(item.standing.device)
            first.append(item)
    return first, later


def _repeat(items: list[Pending]) -> None:
    """The outcome of `items` is not known: they are published again."""
    for item in items:
        item.repeated = True


def _ours(item: Pending) -> bool:
    """Whether a duplicate of `item` can only be itself: published before by this node, or with its
    payload in its id.
    """
    return item.repeated or (item.reject is not None and item.reject[0] == SEQ_REUSED)
