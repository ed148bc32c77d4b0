"""Where the messages of a lane wait: the queue, the staged batch, the retries, and aside. Pure.

`lane.py` draws how messages move between these places.
"""

from collections import deque
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from gateway.stream.lanes.batch import Batch, Item, Kind, Pending, Run
from gateway.stream.lanes.questions import Aside, Question
from gateway.stream.names import EVENTS

Source = deque[Item] | deque[Pending]
"""The queue, or what is to be repeated."""

_STAGED_MAX_S: Final = 5.0
"""A batch staged for longer is begun again: a server gives up one it hears nothing of (ADR-50)."""

_PASSED_MAX: Final = 32
"""So many frames of busy devices are passed over in search of others; so the search has a bound."""


@dataclass(slots=True)
class BatchLimits:
    """Bounds of a batch. `messages_max` falls when the server takes fewer."""

    messages_max: int
    bytes_max: int
    doubt_max_s: float
    """What was last known to be absent longer ago is looked up before it is published."""


class Waiting:
    """The messages of one lane that are not in flight."""

    __slots__ = ("_in_runs", "_limits", "aside", "queue", "retry", "staged")

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._in_runs = 0  # messages in the runs of the queue, without one of each run
        self.queue: deque[Item] = deque()
        """What came in, and was not published yet."""
        self.retry: deque[Pending] = deque()
        """What is published next, before the queue."""
        self.staged: Batch | None = None
        """The batch of which all but the last message was sent ahead."""
        self.aside = Aside()
        """What waits until the stream has answered a question."""

    def __len__(self) -> int:
        """Messages that the next batch can take."""
        staged = len(self.staged.items) if self.staged is not None else 0
        return self.queued + len(self.retry) + staged

    @property
    def queued(self) -> int:
        """Messages in the queue."""
        return len(self.queue) + self._in_runs

    def add_run(self, run: Run) -> None:
        """The messages of a run come in, behind the others."""
        self.queue.append(run)
        self._in_runs += len(run.messages) - 1

    def repeat(self, items: list[Pending]) -> None:
        """`items` are published next, before all else."""
        self.retry.extendleft(reversed(items))

    def give_back(self, batch: Batch) -> None:
        """What was taken for `batch` is not sent now: put it back at the front of the queue."""
        self.queue.extendleft(reversed(batch.items))
        self._in_runs += batch.in_runs

    def take_back(self) -> None:
        """The server may not have what was sent ahead: put it back at the front of the queue."""
        if self.staged is not None:
            self.queue.extendleft(reversed(self.staged.items))
            self.staged = None

    def check_staged(self, now: float, *, atomic: bool) -> None:
        """Take the staged batch back if it is too old, or batches are not `atomic` any more."""
        if self.staged is not None and (not atomic or now - self.staged.started_at > _STAGED_MAX_S):
            self.take_back()

    def take_alone(self, now: float) -> Pending | None:
        """The message that waits, if no other one does and it can be published at once.

        A quiet device waits for this, so it is decided without the steps that batches need.
        """
        item = self.queue[0]
        if (
            self.retry
            or len(self.queue) > 1
            or self.staged is not None
            or self.aside.by_device
            or item.absent_at <= now - self._limits.doubt_max_s
            or item.owner.superseded
            or not isinstance(item, Pending)
        ):
            return None
        self.queue.clear()
        return item

    def take_staged(self, now: float) -> Batch | None:
        """The staged batch, which is sent to its end now."""
        batch, self.staged = self.staged, None
        if batch is not None:
            batch.started_at = now
        return batch

    def fill(
        self,
        batch: Batch,
        source: Source,
        dropped: list[Pending],
        messages_max: int,
        *,
        ahead: bool = False,
    ) -> None:
        """From the front of `source` into `batch`: messages of one stream, up to its bounds.

        Args:
            batch: to be filled.
            source: the queue or what is to be repeated.
            dropped: takes what a newer session resends.
            messages_max: messages of the batch, at most.
            ahead: stop before a message that must be looked up, instead of setting it aside.
        """
        items, aside = batch.items, self.aside.by_device
        bytes_max = self._limits.bytes_max
        limit = batch.started_at - self._limits.doubt_max_s
        stream = items[0].stream if items else ""
        owner, superseded = None, False
        while source and not batch.complete:
            item = source[0]
            if item.owner is not owner:  # messages of one frame have one owner
                owner = item.owner
                superseded = owner.superseded
            if isinstance(item, Run):
                alone = superseded or batch.kind is Kind.ATOMIC or aside or item.absent_at <= limit
                self._take_run(batch, source, messages_max, whole=not alone)
                stream = EVENTS
                continue
            if superseded:
                dropped.append(item)
                source.popleft()
                continue
            if aside or item.absent_at <= limit:
                waits = None if ahead else self._waits(item, limit, items)
                if waits:
                    source.popleft()
                    continue
                if waits is None:
                    batch.complete = True
                    break
            size = batch.size + item.size
            if not items:
                stream = item.envelope.stream
            elif (
                batch.messages >= messages_max or size > bytes_max or item.envelope.stream != stream
            ):
                batch.complete = True
                break
            batch.size = size
            items.append(item)
            source.popleft()

    def fill_beside(
        self, batch: Batch, busy: AbstractSet[str], dropped: list[Pending], messages_max: int
    ) -> None:
        """As `fill`, from the queue, and passes over the messages of the devices in `busy`.

        Those keep their places: messages of different devices have no order.
        """
        queue, messages = self.queue, 0
        free: deque[Item] = deque()
        passed: list[Item] = []
        while queue and messages < messages_max and len(passed) < _PASSED_MAX:
            item = queue.popleft()
            if item.standing.device in busy:
                passed.append(item)
            else:
                free.append(item)
                messages += len(item.messages) if isinstance(item, Run) else 1
        self.fill(batch, free, dropped, messages_max, ahead=True)
        queue.extendleft(reversed(free))
        queue.extendleft(reversed(passed))

    def _take_run(self, batch: Batch, source: Source, messages_max: int, *, whole: bool) -> None:
        """What becomes of the run at the front of `source`.

        Args:
            batch: is being filled.
            source: the run goes from it into `batch`, stays for the next one, or is split in its
                place.
            messages_max: messages of the batch, at most.
            whole: whether its messages need not be treated one by one.
        """
        run, bytes_max = source[0], self._limits.bytes_max
        assert isinstance(run, Run)
        count = len(run.messages)
        if not whole or count > messages_max or run.size > bytes_max:
            source.popleft()
            source.extendleft(reversed(run.split()))
        elif batch.items and (
            batch.messages + count > messages_max
            or batch.size + run.size > bytes_max
            or batch.items[0].stream != EVENTS
        ):
            batch.complete = True
            return
        else:
            source.popleft()
            batch.add(run)
        self._in_runs -= count - 1

    def take_round(self, now: float, dropped: list[Pending]) -> list[Pending]:
        """The first message of each device that has any to be repeated."""
        limit = now - self._limits.doubt_max_s
        taken, self.retry = self.retry, deque()
        first: list[Pending] = []
        seen: set[str] = set()
        for item in taken:
            if item.owner.superseded:
                dropped.append(item)
            elif item.standing.device in seen:
                self.retry.append(item)
            elif not self._waits(item, limit, []):
                seen.add(item.standing.device)
                first.append(item)
        return first

    def set_aside(self, question: Question) -> None:
        """The messages of its device wait from now on, until the stream has answered."""
        self.aside.add(question)
        # What was sent ahead may hold later messages of this device.
        self.take_back()

    def answered(self, question: Question, settled: set[Pending]) -> None:
        """The stream has answered: what is not settled goes on, ahead of all else."""
        self.aside.answered(question)
        left = [item for item in question.items if item not in settled]
        if left:
            self.take_back()
            self.repeat(left)

    def _waits(self, item: Pending, limit: float, taken: Sequence[Item]) -> bool | None:
        """Whether `item` must wait aside, and does so now.

        Args:
            item: about to be published.
            limit: what was last known to be absent at that time or before is looked up first.
            taken: what is published with it.

        Returns:
            None if it must, but messages of its device in `taken` have to be settled first.
        """
        question = self.aside.by_device.get(item.standing.device)
        if question is not None:
            question.items.append(item)
            return True
        if item.absent_at > limit:
            return False
        if any(other.standing.device == item.standing.device for other in taken):
            return None
        self.set_aside(Question(deque([item])))
        return True
