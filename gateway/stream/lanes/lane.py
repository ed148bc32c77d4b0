"""A publish lane: group commit for the devices hashed to it. Pure; no I/O, no clock of its own.

            submit           stage            next_batch             resolve: stored
  (device) --------> [queue] -------> [staged] ----------> in flight ----------------> settled
                        |                                 ^   |  |
                        |          next_batch             |   |  | resolve: duplicate  found,
                        +---------------------------------+   |  +----------> [aside]  compared
                        |                                 |   |                |  |
                        |  next_batch: in doubt too long  |   |                |  +-----> settled
                        +---------------> [aside]         |   | resolve:       |
                                                          |   v repeat         v
                                                          +-- [retry] <--------+
                                                              goes before all else

Rules:
- At most one batch is in flight. Whatever arrives meanwhile is the next batch: small when quiet,
  large when busy, and no timer decides.
- When much waits behind the batch in flight, the next one is sent ahead (`ahead.py`). An atomic one
  is staged: the server parses and keeps it while it syncs the batch in flight. A staged batch that
  the server may have lost is taken back and sent again under a new number; the server forgets the
  old one by itself (ADR-50). A fast or linked one follows: it is sent whole, of other devices, and
  is in flight when the one before has landed.
- A device's messages are in one lane, in order, and are published only when those before are
  settled. So order per device holds through any retry.
- An ambiguous answer (timeout, disconnect) repeats the batch with the same message ids; the
  server's duplicate detection makes that harmless. A slow answer is never a reason to give up.
- The server forgets ids after its duplicate window. What was last known not to be stored half a
  window ago is looked up in the stream before it is published, for the first time or again
  (`standing.py` has the rule). A duplicate that this node did not publish before is compared with
  the stored message, because the seq may have been given to two messages. Meanwhile all messages of
  that device wait aside, in order, and the lane goes on with the others.
- When a batch holds a duplicate, or was stored in part, its messages are settled one by one in
  rounds: plain publishes, at most one per device in flight, so that order holds there too.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from gateway.stream.lanes.ahead import Ahead
from gateway.stream.lanes.batch import (
    Answer,
    Batch,
    Disposal,
    Item,
    Kind,
    Pending,
    Run,
    Strategy,
    Verdict,
    mark_repeated,
)
from gateway.stream.lanes.encoding import SEQ_REUSED
from gateway.stream.lanes.lane_method import Method
from gateway.stream.lanes.lane_waiting import BatchLimits, Source, Waiting
from gateway.stream.lanes.questions import Question
from gateway.stream.lanes.standing import DOUBT_SHARE, Standing

_ANSWER_MISSING: Final = Answer(Verdict.AMBIGUOUS, "timeout")


class Lane:
    """The state of one lane. Its runner drives it: submit, next_batch, resolve."""

    def __init__(
        self,
        *,
        batch_messages_max: int,
        batch_bytes_max: int,
        duplicate_window_s: float,
        dispose: Disposal,
    ) -> None:
        """
        Args:
            batch_messages_max: messages of the largest batch.
            batch_bytes_max: bytes of the largest batch; a larger message is a batch of its own.
            duplicate_window_s: how long JetStream remembers message ids.
            dispose: makes the dead letter of a message that JetStream will never take.
        """
        self.method = Method()
        doubt_max_s = duplicate_window_s * DOUBT_SHARE
        self._limits = BatchLimits(batch_messages_max, batch_bytes_max, doubt_max_s)
        self._dispose = dispose
        self._waiting = Waiting(self._limits)
        self._careful = False
        self._number = 0
        self._ahead = Ahead(self._waiting, self.method, self._limits)
        self.in_flight: Batch | None = None
        self.failures = 0
        """Batches in a row that had to be repeated with nothing settled; for the backoff."""
        self.quiet = False
        """Whether the last batch was one message, and nothing came while it was in flight."""

    @property
    def strategy(self) -> Strategy:
        """How batches of several messages are published."""
        return self.method.strategy

    @strategy.setter
    def strategy(self, strategy: Strategy) -> None:
        self.method.strategy = strategy

    def __len__(self) -> int:
        """Messages held: waiting, to be repeated, aside, or in flight."""
        return self.waiting + self.flying + self._waiting.aside.messages

    @property
    def flying(self) -> int:
        """Messages that were sent and are not answered."""
        batches = (self.in_flight, self.following)
        return sum(batch.messages for batch in batches if batch is not None)

    @property
    def following(self) -> Batch | None:
        """The batch that is in flight when the present one has landed; it was sent already."""
        return self._ahead.following

    @property
    def waiting(self) -> int:
        """Messages that the next batch can take."""
        return len(self._waiting)

    @property
    def asking(self) -> int:
        """Devices whose messages wait until the stream has answered."""
        return len(self._waiting.aside.by_device)

    def submit(self, items: Iterable[Pending]) -> None:
        """Messages come in, in order for each device."""
        self._waiting.queue.extend(items)

    def submit_run(self, run: Run) -> None:
        """As `submit`, of messages that may go through the lane as one."""
        self._waiting.add_run(run)

    def distrust(self, standing: Standing) -> None:
        """Messages of this outbox may be repeats: publish them so that duplicates show."""
        self.method.distrust(standing)

    # Batches

    def next_batch(self, now: float) -> tuple[Batch | None, list[Pending]]:
        """The batch to send now, if none is in flight and anything waits.

        Returns:
            The batch, and the messages dropped from the queue because a newer session of their
            device resends them. Questions may have come up: see `take_questions`.
        """
        if self.in_flight is not None:
            return None, []
        waiting = self._waiting
        if len(waiting.queue) == 1 and (item := waiting.take_alone(now)) is not None:
            self._careful = False
            self._number += 1
            batch = self.in_flight = Batch(self._number, Kind.SINGLE, [item], now, item.size)
            return batch, []
        waiting.check_staged(now, atomic=self.method.strategy is Strategy.ATOMIC)
        dropped: list[Pending] = []
        batch = self._new_batch(now)
        if waiting.retry:
            self._take_repeats(batch, dropped)
        if not batch.items and not waiting.retry:
            batch = self._take_new(batch, dropped)
        if not batch.items:
            return None, dropped
        if batch.kind is Kind.ROUND:
            later = batch.keep_one_per_device()
            waiting.repeat(later)  # ahead of the queue
            self._careful = bool(later)
        self.in_flight = batch
        return batch, dropped

    def _take_repeats(self, batch: Batch, dropped: list[Pending]) -> None:
        if self._careful:
            batch.items = list(self._waiting.take_round(batch.started_at, dropped))
            batch.kind = Kind.ROUND
        else:
            self._fill(batch, self._waiting.retry, dropped)

    def _take_new(self, batch: Batch, dropped: list[Pending]) -> Batch:
        """The staged batch if there is one, else `batch`, filled from the queue."""
        self._careful = False
        batch = self._waiting.take_staged(batch.started_at) or batch
        self._fill(batch, self._waiting.queue, dropped)
        return batch

    def _fill(self, batch: Batch, source: Source, dropped: list[Pending]) -> None:
        messages_max = self.method.messages_max(self._limits.messages_max)
        self._waiting.fill(batch, source, dropped, messages_max)
        if not batch.sent:
            batch.kind = self.method.kind_of(batch)

    def _new_batch(self, now: float) -> Batch:
        self._number += 1
        return Batch(self._number, Kind.SINGLE, [], now)

    # Sending ahead

    @property
    def can_send_ahead(self) -> bool:
        """Whether so much waits behind the batch in flight that it is worth sending ahead."""
        if self.in_flight is None or self._careful or self.failures:
            return False
        return self._ahead.can_take(self.in_flight)

    def send_ahead(self, now: float) -> tuple[Batch | None, int, list[Pending]]:
        """Take from the queue what can be sent ahead, if `can_send_ahead`.

        Returns:
            The batch it is part of, the place of the first message to send now (up to `sent`, or
            all if it is `following`), and the messages dropped as in `next_batch`.
        """
        in_flight, dropped = self.in_flight, list[Pending]()
        if in_flight is None or not self.can_send_ahead:
            return None, 0, dropped
        batch = self._new_batch(now)
        if self.method.strategy is Strategy.ATOMIC:
            return *self._ahead.stage(batch, dropped), dropped
        return self._ahead.follow(batch, in_flight, dropped), 0, dropped

    def take_back(self) -> None:
        """The server may not have what was sent ahead: put it back at the front of the queue."""
        self._waiting.take_back()

    # Answers

    def resolve(self, answer: Answer) -> Sequence[Item]:
        """The batch in flight was answered as a whole. Returns what is settled now, in order."""
        batch = self._land()
        verdict = answer.verdict
        if verdict is Verdict.STORED:
            self.failures = 0
            return batch.items
        items = batch.split()
        if verdict is Verdict.DUPLICATE:
            self.failures = 0
            if items[0].ours:
                return items
            self._waiting.set_aside(Question(deque(items), answer.stored_at))
            return []
        settled: list[Pending] = []
        if verdict is Verdict.PARTIAL:
            settled, items = self._stored_in_part(batch, answer.stored_count)
        elif verdict is Verdict.REFUSED:
            if len(items) == 1:
                items = [self._dispose(items[0], answer.reason)]
            self._careful = True  # find the one message that offends
        elif verdict is Verdict.TOO_LARGE:
            # Lower the bound by at least one: the search for it must end whatever the server says.
            allowed = min(answer.messages_max, self._limits.messages_max - 1)
            self._limits.messages_max = max(1, allowed)
            self.take_back()
        else:
            self.failures += 1
            # Such a batch may be stored in part; its first duplicate would end a second one.
            self._careful = self._careful or batch.stored_one_by_one
            self.take_back()
            mark_repeated(items)
        self._waiting.repeat(items)
        return settled

    def _stored_in_part(self, batch: Batch, count: int) -> tuple[list[Pending], list[Pending]]:
        """The first `count` messages of `batch` are stored; the rest is settled one by one."""
        items = batch.split()
        settled, rest = items[:count], items[count:]
        self._careful = True
        if batch.stored_one_by_one:
            self.method.cut_short(batch.kind)
            mark_repeated(rest)
        self.failures = 0 if settled else self.failures
        return settled, rest

    def resolve_one(self, place: int, answer: Answer) -> list[Pending] | None:
        """One message of the round in flight was answered.

        Returns:
            None while answers are missing; with the last one, the messages settled.
        """
        batch = self.in_flight
        assert batch is not None
        batch.answers[place] = answer
        if len(batch.answers) < len(batch.items):
            return None
        return self.finish_round(_ANSWER_MISSING)

    def finish_round(self, missing: Answer) -> list[Pending]:
        """End the round in flight, taking `missing` for every answer that did not come.

        Returns what is settled now, in order.
        """
        batch = self._land()
        settled: list[Pending] = []
        again: list[Pending] = []
        asked = False
        for place, item in enumerate(batch.split()):
            answer = batch.answers.get(place, missing)
            duplicate = answer.verdict is Verdict.DUPLICATE
            if answer.verdict is Verdict.STORED or (duplicate and item.ours):
                settled.append(item)
            elif duplicate:
                self._waiting.set_aside(Question(deque([item]), answer.stored_at))
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
        self._waiting.repeat(again)
        return settled

    def _land(self) -> Batch:
        batch, ahead = self.in_flight, self._ahead
        assert batch is not None, "no batch is in flight"
        self.in_flight, ahead.following = ahead.following, None
        self.quiet = batch.messages == 1 and not len(self._waiting)
        return batch

    # Questions to the stream

    def take_questions(self) -> list[Question]:
        """What the stream is to be asked now. Each is answered by `found` or `compared`."""
        return self._waiting.aside.take_unasked()

    def found(self, question: Question, seq: int, asked_at: float) -> list[Pending]:
        """The stream said, at `asked_at`, how far an outbox has come: up to `seq`.

        Returns:
            The messages now settled, in order.
        """
        return self._answered(question, question.found(seq, asked_at))

    def compared(self, question: Question, *, same: bool) -> list[Pending]:
        """The first message of `question` was compared with the one stored under its id.

        Returns:
            The messages now settled.
        """
        first = question.items[0]
        if not same:
            question.items[0] = self._dispose(first, SEQ_REUSED)
        return self._answered(question, [first] if same else [])

    def _answered(self, question: Question, settled: list[Pending]) -> list[Pending]:
        self.failures = 0
        self._waiting.answered(question, set(settled))
        return settled
