"""Tells sessions what is settled, and keeps the figures of storing for a node."""

import math
from collections.abc import Sequence

from gateway.session.owner import MessageOwner
from gateway.stream.lanes.backlog import Backlog
from gateway.stream.lanes.batch import Answer, Batch, Item, Pending, Run, Verdict
from gateway.stream.lanes.dead_letters import letter_of
from gateway.stream.lanes.encoding import SEQ_REUSED
from gateway.stream.lanes.standing import NEVER
from gateway.stream.lanes.tracing import BatchTraces
from gateway.stream.observer import StreamObserver


class Settlements:
    """What became of messages, of all lanes of a node."""

    __slots__ = ("_backlog", "_observer", "_recent_s", "_traces", "last_reason", "stored_messages")

    def __init__(
        self, backlog: Backlog, observer: StreamObserver, traces: BatchTraces | None = None
    ) -> None:
        """
        Args:
            backlog: of the node.
            observer: hooks for metrics.
            traces: hooks for traces; None if no message is sampled.
        """
        self._backlog = backlog
        self._observer = observer
        self._traces = traces
        self._recent_s: list[float] = []
        self.last_reason = ""
        """Why a batch was last repeated."""
        self.stored_messages = 0
        """Messages that JetStream has acknowledged to this process. A look-up stores nothing."""

    def take_recent(self) -> list[float]:
        """How long each batch took that was answered since the last call, in seconds."""
        recent, self._recent_s = self._recent_s, []
        return recent

    def landed(self, batch: Batch, took_s: float, trouble: str) -> None:
        """A batch was answered, or will not be answered any more.

        Args:
            batch: as it was published.
            took_s: from publishing to the answer.
            trouble: why messages of it must be repeated; empty if none must.
        """
        if self._traces is None:
            return
        sampled = [
            item.trace for item in batch.items if type(item) is Pending and item.trace is not None
        ]
        if sampled:
            self._traces.landed(sampled, batch.kind.value, batch.messages, took_s, trouble)

    def drop(self, dropped: list[Pending]) -> None:
        """A newer session of their device sends these messages again."""
        if self._traces is not None:
            for item in dropped:
                if item.trace is not None:
                    item.trace.superseded()
        self._backlog.release(len(dropped), sum(item.size for item in dropped))

    def repeated(self, reason: str, messages: int) -> None:
        """So many messages of a batch must be repeated."""
        self.last_reason = reason
        self._observer.batch_retried(reason, messages)

    def absent(self, messages: int) -> None:
        """A look-up did not find so many messages: they must be published."""
        self._observer.batch_retried("absent", messages)

    def stored_alone(self, batch: Batch, item: Pending, answer: Answer, took_s: float) -> None:
        """The only message of a batch is settled, and no other one waits: first its ack."""
        if item.trace is not None or item.reject is not None:
            self.landed(batch, took_s, "")
            self.stored(batch, [item], answer, took_s, 0)
            return
        item.standing.stored = item.seq
        item.owner.stored(item.seq)
        self._backlog.release(1, item.size)
        self._count(batch, 1, int(answer.verdict is Verdict.DUPLICATE), took_s)

    def _count(self, batch: Batch, messages: int, duplicates: int, took_s: float) -> None:
        self.stored_messages += messages
        self._recent_s.append(took_s)
        self._observer.batch_settled(batch.kind.value, messages, duplicates, took_s)

    def stored(
        self,
        batch: Batch,
        settled: Sequence[Item],
        answer: Answer | None,
        took_s: float,
        compared: int,
    ) -> None:
        """Messages of a batch are settled.

        Args:
            batch: as it was published.
            settled: its messages that are settled, in order.
            answer: to the batch; None if its messages were answered one by one.
            took_s: from publishing to the answer.
            compared: duplicates in it that are compared with what is stored first.
        """
        messages = self.tell(settled)  # first: devices wait for their acks
        if batch.answered_one_by_one:
            verdicts = [given.verdict for given in batch.answers.values()]
            duplicates = verdicts.count(Verdict.DUPLICATE) - compared
        else:
            duplicates = int(answer is not None and answer.verdict is Verdict.DUPLICATE)
        self._count(batch, messages, duplicates, took_s)

    def found(self, kind: str, settled: list[Pending], duplicates: int, took_s: float) -> None:
        """A question to the stream has settled messages that are stored already."""
        self._observer.batch_settled(kind, len(settled), duplicates, took_s)
        self.tell(settled)

    def tell(self, settled: Sequence[Item]) -> int:
        """Tell each session once, and give the room back.

        Returns:
            How many messages these are.
        """
        highest: dict[MessageOwner, Item] = {}
        size, messages = 0, len(settled)
        traces = self._traces is not None
        for item in settled:
            size += item.size
            highest[item.owner] = item
            if isinstance(item, Run):
                messages += len(item.messages) - 1
                continue
            if item.reject is not None:
                self._observer.dead_lettered(item.reject[0])
                item.owner.rejected(item.seq, *item.reject)
            if traces and item.trace is not None:
                item.trace.settled(item.reject[0] if item.reject is not None else "")
        for owner, item in highest.items():
            item.standing.stored = item.seq
            owner.stored(item.seq)
        self._backlog.release(messages, size)
        return messages

    def dispose(self, item: Pending, reason: str) -> Pending:
        """The dead letter of a message that JetStream will never take."""
        letter, detail = letter_of(item.envelope, item.seq, reason)
        self._backlog.grow(letter.size - item.size)
        standing, absent_at = item.standing, item.absent_at
        standing.letter_seq = max(standing.letter_seq, item.seq)
        if reason == SEQ_REUSED:
            # The seq belongs to another message, so a look-up says nothing of this letter.
            absent_at = math.inf
        elif item.repeated or item.seq <= standing.doubt_seq:
            # It may be in EVENTS already, where the ids of DEADLETTERS are not compared.
            absent_at = NEVER
        return Pending(
            item.owner,
            standing,
            item.seq,
            letter,
            letter.size,
            absent_at,
            item.trace,
            (reason, detail),
        )
