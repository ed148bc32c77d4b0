"""Runs one lane: sends its batches, times its answers, asks its questions. Shell of `lane.py`."""

import random
from collections.abc import Callable, Sequence

import structlog

from gateway import tasks
from gateway.jitter import full_jitter_s
from gateway.stream.lanes import pubacks
from gateway.stream.lanes.ahead import EAGER_MESSAGES
from gateway.stream.lanes.backlog import Backlog
from gateway.stream.lanes.batch import (
    Answer,
    Batch,
    Item,
    Kind,
    Pending,
    Run,
    Strategy,
    Verdict,
    count_of,
)
from gateway.stream.lanes.batch_bytes import part_ahead, parts_of
from gateway.stream.lanes.encoding import encode_plain
from gateway.stream.lanes.inquirer import Inquirer
from gateway.stream.lanes.lane import Lane
from gateway.stream.lanes.limits import PublishLimits
from gateway.stream.lanes.moment import NextMoment
from gateway.stream.lanes.settlements import Settlements
from gateway.stream.lanes.standing import Standing
from gateway.stream.lanes.stored import StoredSeqs
from gateway.stream.link.client import LinkClient

_log = structlog.get_logger(__name__)


class LaneRunner:
    """One lane, over the connection of its node."""

    def __init__(
        self,
        lane: Lane,
        name: str,
        *,
        inbox: str,
        limits: PublishLimits,
        backlog: Backlog,
        settlements: Settlements,
        stored: StoredSeqs,
        crew: tasks.Crew,
        rng: random.Random,
        clock: Callable[[], float],
    ) -> None:
        """
        Args:
            lane: the lane.
            name: unique among all lanes of all nodes; a part of the names of batches.
            inbox: prefix of the subjects of answers.
            limits: bounds and times.
            backlog: of the node.
            settlements: of the node.
            stored: asks the streams.
            crew: owns the tasks that ask.
            rng: source of jitter.
            clock: monotonic seconds. Not `loop.time()`, which uvloop keeps in whole milliseconds.
        """
        self.lane = lane
        self._name = name
        self._inbox = f"{inbox}{name}-".encode()
        self._limits = limits
        self._backlog = backlog
        self._settlements = settlements
        self._inquirer = Inquirer(
            lane,
            name,
            stored=stored,
            settlements=settlements,
            crew=crew,
            clock=clock,
            answered=self._answered_question,
        )
        self._rng = rng
        self._clock = clock
        self._moment = NextMoment(self._on_moment)
        self._client: LinkClient | None = None

    def submit(self, items: list[Pending], size: int) -> None:
        """Take messages; their owners hear when they are settled.

        Args:
            items: messages of one device, in order.
            size: bytes of all of them.
        """
        self.lane.submit(items)
        self._backlog.add(len(items), size)
        self._came_in()

    @property
    def takes_runs(self) -> bool:
        """Whether messages may come as runs."""
        return self.lane.strategy is Strategy.LINKED

    def submit_run(self, run: Run) -> None:
        """Take the messages of a run."""
        self.lane.submit_run(run)
        self._backlog.add(len(run.messages), run.size)
        self._came_in()

    def _came_in(self) -> None:
        """Send what waits, if it is time."""
        lane = self.lane
        if lane.in_flight is None:
            if not self._moment.is_set:
                if lane.quiet and not self._limits.linger_s:
                    self._send_next()  # nothing else is likely to come in this turn
                else:
                    self._send_soon()
            elif lane.waiting >= EAGER_MESSAGES and not lane.failures:
                # One turn of the loop can bring messages of a thousand sockets, and JetStream
                # should work while the rest are read.
                self._send_next()
        elif lane.can_send_ahead:
            self._send_ahead()

    def _send_soon(self) -> None:
        """Send what waits when this turn of the loop is over, or after the time to linger."""
        linger_s = self._limits.linger_s
        if linger_s:
            self._moment.set_after(linger_s)
        else:
            self._moment.set_soon()

    def turn_over(self) -> None:
        """Send what waits for the end of this turn of the loop."""
        self._moment.turn_over()

    def distrust(self, standing: Standing) -> None:
        """What this outbox sends next may be stored already, and nobody has asked the stream."""
        self.lane.distrust(standing)

    def when_ready(self, client: LinkClient) -> None:
        """A fresh connection is in use: go on with what waits."""
        self._client = client
        if self.lane.in_flight is None and self.lane.waiting:
            self._send_next()

    def when_down(self) -> None:
        """The connection is lost: nobody knows whether what is in flight was stored."""
        self._client = None
        self._lose_ahead()
        if self.lane.in_flight is not None:
            self._answered(pubacks.DISCONNECTED)

    def close(self) -> None:
        """Send nothing more."""
        self._client = None
        self._moment.close()

    def on_reply(self, number: int, place: int, data: bytes, *, responders: bool) -> None:
        """An answer came from JetStream.

        Args:
            number: of the batch.
            place: of the message, if the messages of the batch are answered one by one.
            data: the answer.
            responders: False if the server says that no stream listens.
        """
        lane = self.lane
        batch = lane.in_flight
        if batch is None or batch.number != number:
            batch = lane.following
            if batch is None or batch.number != number:
                return  # the answer came after its timeout; the repeat is answered too
        one_by_one = batch.answered_one_by_one
        answer: Answer | None = pubacks.NO_RESPONDERS
        if responders:
            stream = batch.items[place if one_by_one else 0].stream
            answer = pubacks.read_answer(
                data, kind=batch.kind, stream=stream, messages=batch.messages
            )
        if answer is not None and batch.kind is Kind.LINKED:
            answer = batch.whole(place, answer)
        if answer is None:
            return
        if batch is not lane.in_flight:
            batch.early = answer
            return
        if not one_by_one:
            self._answered(answer)
            return
        settled = lane.resolve_one(place, answer)
        if settled is not None:
            self._after(batch, settled, None)

    # Batches

    def _on_moment(self) -> None:
        """Time for the next batch, or the batch in flight was not answered in time."""
        if self.lane.in_flight is None:
            self._send_next()
        else:
            self._answered(pubacks.TIMEOUT)

    def _send_next(self) -> None:
        """Send the lane's next batch, if it can be sent."""
        client = self._client
        if client is None:
            return  # when_ready comes back to it
        batch, dropped = self.lane.next_batch(self._clock())
        self._moment.forget()
        if batch is not None:
            if self._write(client, batch):
                self._moment.set_after(self._limits.ack_timeout_s)
            else:
                self._answered(pubacks.DISCONNECTED)
        if dropped:
            self._settlements.drop(dropped)
        self._inquirer.ask()

    def _send_ahead(self) -> None:
        """Send what waits behind the batch in flight, if it can be sent."""
        client = self._client
        batch, first, dropped = self.lane.send_ahead(self._clock())
        if dropped:
            self._settlements.drop(dropped)
        if batch is None:
            return
        if client is None:
            written = False
        elif batch is self.lane.following:
            written = self._write(client, batch)
        else:
            ahead = part_ahead(batch, self._token(batch), first)
            written = not ahead or client.write(ahead)
        if not written:
            self._lose_ahead()

    def _lose_ahead(self) -> None:
        """What was sent ahead may be lost with the connection."""
        self.lane.take_back()
        following = self.lane.following
        if following is not None:
            following.early = pubacks.DISCONNECTED

    def _token(self, batch: Batch) -> bytes:
        """Names the batch, to the server and in the subject of its answers."""
        return f"{self._name}-{batch.number}".encode()

    def _reply(self, batch: Batch) -> bytes:
        """Where the batch is answered."""
        return b"%b%d" % (self._inbox, batch.number)

    def _write(self, client: LinkClient, batch: Batch) -> bool:
        """Write what is still to be sent of the batch; False if the connection is lost."""
        if batch.kind is Kind.SINGLE:
            item = batch.items[0]
            assert type(item) is Pending, "a run is more than one message"
            return client.write(encode_plain(item.envelope, self._reply(batch)))
        parts = parts_of(batch, self._token(batch), self._reply(batch), EAGER_MESSAGES)
        return all(client.write(part) for part in parts)

    def _answered(self, answer: Answer) -> None:
        """The batch in flight was answered as a whole, or will not be answered any more."""
        lane = self.lane
        batch = lane.in_flight
        assert batch is not None
        if answer.verdict is Verdict.TOO_LARGE:
            _log.info("batch_limit_learned", lane=self._name, messages=answer.messages_max)
        if batch.answered_one_by_one:
            self._after(batch, lane.finish_round(answer), answer)
            return
        settled = lane.resolve(answer)
        if settled and lane.quiet:
            item = settled[0]
            assert type(item) is Pending, "a quiet lane's batch was one message"
            self._moment.forget()
            self._settlements.stored_alone(batch, item, answer, self._clock() - batch.started_at)
        else:
            self._after(batch, settled, answer)

    def _after(self, batch: Batch, settled: Sequence[Item], answer: Answer | None) -> None:
        """A batch has landed: send the next, or wait before a repeat, and tell its sessions."""
        took_s = self._clock() - batch.started_at
        compared = self._inquirer.ask()
        self._moment.forget()
        reason = answer.reason if answer is not None else batch.reason
        repeated = batch.messages - count_of(settled) - compared
        self._settlements.landed(batch, took_s, reason if repeated else "")
        follows = self._go_on_after(repeated, reason)  # first: JetStream works meanwhile
        if repeated:
            self._settlements.repeated(reason, repeated)
        else:
            self.lane.method.times.took(batch, took_s)
        if settled:
            self._settlements.stored(batch, settled, answer, took_s, compared)
        self._send_ahead()
        if follows is not None and follows.early is not None:
            self._answered(follows.early)

    def _go_on_after(self, repeated: int, reason: str) -> Batch | None:
        """A batch has landed: go on with the one that follows it, or with what waits.

        Args:
            repeated: messages of the batch that has landed which must be repeated.
            reason: why.

        Returns:
            The batch that follows it.
        """
        lane = self.lane
        if lane.failures:
            self._report_failure(repeated, reason)
        follows = lane.in_flight
        if follows is not None:
            follows.started_at = self._clock()  # its time began when the server was free for it
            self._moment.set_after(self._limits.ack_timeout_s)
        elif lane.failures:
            self._wait_before_repeat()
        elif lane.waiting:
            self._send_next()
        return follows

    def _report_failure(self, messages: int, reason: str) -> None:
        failures = self.lane.failures
        if failures == 1 or failures % 10 == 0:
            _log.warning(
                "publish_repeated",
                lane=self._name,
                messages=messages,
                reason=reason,
                failures=failures,
            )

    def _wait_before_repeat(self) -> None:
        limits = self._limits
        wait_s = full_jitter_s(
            self._rng,
            self.lane.failures,
            first_s=limits.retry_s,
            max_s=limits.retry_max_s,
            least_s=limits.retry_s / 2,
        )
        self._moment.set_after(wait_s)

    def _answered_question(self) -> None:
        if self.lane.in_flight is None and self.lane.waiting:
            self._send_next()
