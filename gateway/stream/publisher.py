"""Publishes messages through lanes and settles each when JetStream has it. Shell of `lane`."""

import asyncio
import math
import random
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import structlog

from gateway import tasks
from gateway.jitter import full_jitter_s
from gateway.stream import pubacks
from gateway.stream.encoding import SEQ_REUSED, encode_atomic, encode_fast, encode_plain
from gateway.stream.lane import (
    EAGER_MESSAGES,
    Answer,
    Batch,
    Kind,
    Lane,
    Owner,
    Pending,
    Question,
    Strategy,
    Verdict,
)
from gateway.stream.nats_client import Headers, LinkClient
from gateway.stream.observer import StreamObserver
from gateway.stream.rights import Role
from gateway.stream.standing import Standing, Standings
from gateway.stream.stored import StoredSeqs

_log = structlog.get_logger(__name__)

_NO_RESPONDERS_STATUS: Final = "503"


@dataclass(frozen=True, slots=True)
class PublishLimits:
    """Bounds and times of publishing. Counts in messages, sizes in bytes, times in seconds."""

    lanes: int = 1
    batch_messages_max: int = 4_000
    batch_bytes_max: int = 2_097_152
    pending_messages_max: int = 100_000
    pending_bytes_max: int = 67_108_864
    ack_timeout_s: float = 5.0
    retry_s: float = 0.1
    retry_max_s: float = 2.0
    hold_after_s: float = 2.0
    duplicate_window_s: float = 120.0
    linger_s: float = 0.0
    lookups: int = 16
    """Questions to the stream at once."""


class Publisher:
    """All lanes of a node, over one NATS connection."""

    def __init__(
        self,
        limits: PublishLimits,
        *,
        node: str,
        observer: StreamObserver,
        on_failure: Callable[[BaseException], None],
        rng: random.Random,
    ) -> None:
        """
        Args:
            limits: bounds and times.
            node: random name of this process; makes batch ids and inboxes unique.
            observer: hooks for metrics.
            on_failure: hears of an error that leaves messages waiting for ever.
            rng: source of jitter.
        """
        self._limits = limits
        self._node = node
        self._observer = observer
        self._rng = rng
        self._client: LinkClient | None = None
        self._inbox = f"{Role.GATEWAY.inbox_prefix}.{node}."
        self._lanes = [
            Lane(
                batch_messages_max=limits.batch_messages_max,
                batch_bytes_max=limits.batch_bytes_max,
                duplicate_window_s=limits.duplicate_window_s,
                dispose=self._dispose,
            )
            for _ in range(limits.lanes)
        ]
        self._timers: list[asyncio.TimerHandle | asyncio.Handle | None] = [None] * limits.lanes
        self._waiters: deque[Callable[[], None]] = deque()
        self._idle = asyncio.Event()
        self._idle.set()
        self._strategy = Strategy.PLAIN
        self._recent_s: list[float] = []
        self._last_reason = ""
        self.stored_messages = 0
        """Messages that JetStream has acknowledged to this process. A look-up stores nothing."""
        self.pending_messages = 0
        self.pending_bytes = 0
        self.standings = Standings(limits.duplicate_window_s)
        """What is known of the outboxes that publish here."""
        self.stored = StoredSeqs(
            lambda: self._client,
            concurrency=limits.lookups,
            rng=rng,
            clock=time.perf_counter,
        )
        """Asks the streams how far an outbox has come."""
        self._crew = tasks.Crew(on_failure)

    @property
    def strategy(self) -> Strategy:
        """How batches are published; plain until somebody knows what the server can do."""
        return self._strategy

    @strategy.setter
    def strategy(self, strategy: Strategy) -> None:
        self._strategy = strategy
        for lane in self._lanes:
            lane.strategy = strategy

    async def on_up(self, client: LinkClient) -> None:
        """A fresh connection: hear the answers on it."""
        await client.subscribe_direct(self._inbox + ">", self._on_reply)

    def on_ready(self, client: LinkClient) -> None:
        """That connection is in use now: go on with what waits."""
        self._client = client
        for index, lane in enumerate(self._lanes):
            if lane.in_flight is None and lane.waiting:
                self._pump(index)

    def on_down(self) -> None:
        """The connection is lost: whatever is in flight may or may not be stored."""
        self._client = None
        for index, lane in enumerate(self._lanes):
            lane.take_back()
            if lane.in_flight is not None:
                self._answer_batch(index, pubacks.DISCONNECTED)

    @property
    def full(self) -> bool:
        """Whether the node holds all it may; whoever submits should stop reading its device."""
        limits = self._limits
        return (
            self.pending_messages >= limits.pending_messages_max
            or self.pending_bytes >= limits.pending_bytes_max
        )

    @property
    def trouble(self) -> str | None:
        """Why nothing is being stored right now, or None."""
        limits = self._limits
        if self._client is None:
            return "nats_disconnected"
        if any(lane.failures > 1 for lane in self._lanes):
            return f"stream_{self._last_reason}"
        if self.stored.failing and any(lane.asking for lane in self._lanes):
            return "stream_timeout"
        now = time.perf_counter()
        if any(
            lane.in_flight is not None and now - lane.in_flight.started_at > limits.hold_after_s
            for lane in self._lanes
        ):
            return "stream_slow"
        return None

    @property
    def backlog(self) -> float:
        """Share of the bounds in use."""
        limits = self._limits
        return max(
            self.pending_messages / limits.pending_messages_max,
            self.pending_bytes / limits.pending_bytes_max,
        )

    def signals(self) -> dict[str, float]:
        """How hard storing is: p99 of batches since the last call (s), share of the bounds used."""
        recent, self._recent_s = self._recent_s, []
        now = time.perf_counter()
        # What is in flight counts as if it were answered now: a stream that stalls answers nothing.
        recent += [now - lane.in_flight.started_at for lane in self._lanes if lane.in_flight]
        recent.sort()
        return {
            "puback_p99": recent[min(len(recent) - 1, len(recent) * 99 // 100)] if recent else 0.0,
            "publish_backlog": self.backlog,
        }

    def when_drained(self, callback: Callable[[], None]) -> None:
        """Call `callback` once there is room again."""
        self._waiters.append(callback)

    def lane_of(self, device: str) -> int:
        """The lane of a device, for as long as this process lives."""
        return zlib.crc32(device.encode()) % len(self._lanes)

    def submit(self, index: int, items: list[Pending]) -> None:
        """Take messages; their owners hear when they are settled.

        Args:
            index: what `lane_of` gives for their device.
            items: messages of one device, in order.
        """
        lane = self._lanes[index]
        lane.submit(items)
        self.pending_messages += len(items)
        self.pending_bytes += sum(item.size for item in items)
        if lane.in_flight is None:
            if self._timers[index] is None:
                self._idle.clear()
                loop = asyncio.get_running_loop()
                linger_s = self._limits.linger_s
                self._timers[index] = (
                    loop.call_later(linger_s, self._fire, index)
                    if linger_s
                    else loop.call_soon(self._fire, index)
                )
            elif lane.waiting >= EAGER_MESSAGES and not lane.failures:
                # One turn of the loop can bring a thousand sockets' messages, and JetStream should
                # work while the rest are read.
                self._pump(index)
        elif lane.can_stage:
            self._stage(index)

    def distrust(self, index: int, standing: Standing) -> None:
        """What this outbox sends next may be a repeat nobody asked the stream about."""
        self._lanes[index].distrust(standing)

    async def drain(self) -> None:
        """Wait until everything submitted is settled."""
        await self._idle.wait()

    async def close(self) -> None:
        """Stop all timers and questions. What is not settled is not acknowledged; its devices
        resend it.
        """
        self._client = None
        for index in range(len(self._lanes)):
            self._set_timer(index, None)
        await self._crew.close()

    def _fire(self, index: int) -> None:
        """The lane's timer ran: its next batch, or the answer that never came."""
        self._timers[index] = None
        if self._lanes[index].in_flight is None:
            self._pump(index)
        else:
            self._answer_batch(index, pubacks.TIMEOUT)

    def _pump(self, index: int) -> None:
        """Send the lane's next batch, if it can be sent."""
        client = self._client
        if client is None:
            return  # on_ready comes back to it
        # Not loop.time(), which uvloop keeps in whole milliseconds.
        batch, dropped = self._lanes[index].next_batch(time.perf_counter())
        if dropped:
            self._release(dropped)
        self._ask(index)
        self._set_timer(index, None)
        if batch is None:
            return
        if all(client.write(part) for part in self._encode(index, batch)):
            self._set_timer(index, self._limits.ack_timeout_s)
        else:
            self._answer_batch(index, pubacks.DISCONNECTED)

    def _stage(self, index: int) -> None:
        """Send ahead what waits behind the lane's batch in flight, if it can be."""
        lane = self._lanes[index]
        batch, first, dropped = lane.stage(time.perf_counter())
        if dropped:
            self._release(dropped)
        if batch is not None and batch.sent > first:
            ahead = [item.envelope for item in batch.items[first : batch.sent]]
            token = self._token(index, batch)
            if self._client is None or not self._client.write(
                encode_atomic(ahead, token.encode(), None, first + 1)
            ):
                lane.take_back()

    def _set_timer(self, index: int, delay_s: float | None) -> None:
        timer = self._timers[index]
        if timer is not None:
            timer.cancel()
        self._timers[index] = (
            asyncio.get_running_loop().call_later(delay_s, self._fire, index)
            if delay_s is not None
            else None
        )

    def _token(self, index: int, batch: Batch) -> str:
        """Names the batch, to the server and in the subject of its answers."""
        return f"{self._node}-{index}-{batch.number}"

    def _encode(self, index: int, batch: Batch) -> Iterator[bytes]:
        """What is still to be sent of the batch, in writes: the server reads one while the next is
        encoded.
        """
        token = self._token(index, batch)
        reply = (self._inbox + token).encode()
        if batch.kind is Kind.SINGLE:
            yield encode_plain(batch.items[0].envelope, reply)
            return
        for start in range(batch.sent, len(batch.items), EAGER_MESSAGES):
            part = [item.envelope for item in batch.items[start : start + EAGER_MESSAGES]]
            last = start + len(part) == len(batch.items)
            if batch.kind is Kind.ATOMIC:
                yield encode_atomic(part, token.encode(), reply if last else None, start + 1)
            elif batch.kind is Kind.FAST:
                yield encode_fast(part, reply, start + 1, commit=last)
            else:
                yield b"".join(
                    encode_plain(envelope, b"%s.%d" % (reply, place))
                    for place, envelope in enumerate(part, start)
                )

    def _on_reply(self, subject: str, data: bytes, headers: Headers) -> None:
        tokens = subject[len(self._inbox) :].split(".")
        _node, lane_text, number_text = tokens[0].split("-")
        index = int(lane_text)
        batch = self._lanes[index].in_flight
        if batch is None or batch.number != int(number_text):
            return  # an answer that came after its timeout; the repeat will be answered too
        place = int(tokens[1]) if batch.answered_one_by_one else 0
        envelope = batch.items[place].envelope
        if headers is not None and headers.get("Status") == _NO_RESPONDERS_STATUS:
            answer: Answer | None = pubacks.NO_RESPONDERS
        else:
            answer = pubacks.read_answer(
                data, kind=batch.kind, stream=envelope.stream, messages=len(batch.items)
            )
        if answer is None:
            return
        if batch.answered_one_by_one:
            self._answer_one(index, place, answer)
        else:
            self._answer_batch(index, answer)

    def _answer_one(self, index: int, place: int, answer: Answer) -> None:
        batch = self._lanes[index].in_flight
        assert batch is not None
        settled = self._lanes[index].resolve_one(place, answer)
        if settled is not None:
            self._after(index, batch, settled, None)

    def _answer_batch(self, index: int, answer: Answer) -> None:
        lane = self._lanes[index]
        batch = lane.in_flight
        assert batch is not None
        if answer.verdict is Verdict.TOO_LARGE:
            _log.info("batch_limit_learned", lane=index, messages=answer.messages_max)
        settled = lane.finish_round(answer) if batch.answered_one_by_one else lane.resolve(answer)
        self._after(index, batch, settled, answer)

    def _after(
        self, index: int, batch: Batch, settled: list[Pending], answer: Answer | None
    ) -> None:
        """A batch has landed: send the next, or wait before a repeat, and tell its sessions."""
        lane = self._lanes[index]
        took_s = time.perf_counter() - batch.started_at
        compared = self._ask(index)
        self._set_timer(index, None)
        reason = answer.reason if answer is not None else _reason_of(batch)
        repeated = len(batch.items) - len(settled) - compared
        if lane.failures:
            if lane.failures == 1 or lane.failures % 10 == 0:
                _log.warning(
                    "publish_repeated",
                    lane=index,
                    messages=repeated,
                    reason=reason,
                    failures=lane.failures,
                )
            limits = self._limits
            wait_s = full_jitter_s(
                self._rng,
                lane.failures,
                first_s=limits.retry_s,
                max_s=limits.retry_max_s,
                least_s=limits.retry_s / 2,
            )
            self._set_timer(index, wait_s)
        elif lane.waiting:
            self._pump(index)  # first of all: JetStream works while the sessions are told
        if repeated:
            self._last_reason = reason
            self._observer.batch_retried(reason, repeated)
        if settled:
            self._observe(batch, len(settled), answer, took_s, compared)
            self._tell(settled)
            self._release(settled)
        self._stage(index)

    def _observe(
        self, batch: Batch, settled: int, answer: Answer | None, took_s: float, compared: int
    ) -> None:
        if batch.answered_one_by_one:
            verdicts = [given.verdict for given in batch.answers.values()]
            duplicates = verdicts.count(Verdict.DUPLICATE) - compared
        else:
            duplicates = int(answer is not None and answer.verdict is Verdict.DUPLICATE)
        self.stored_messages += settled
        self._recent_s.append(took_s)
        self._observer.batch_settled(batch.kind.value, settled, duplicates, took_s)

    def _tell(self, settled: list[Pending]) -> None:
        highest: dict[Owner, Pending] = {}
        for item in settled:
            if item.reject is not None:
                self._observer.dead_lettered(item.reject[0])
                item.owner.rejected(item.seq, *item.reject)
            highest[item.owner] = item
        for owner, item in highest.items():
            item.standing.stored = item.seq
            owner.stored(item.seq)

    def _release(self, items: list[Pending]) -> None:
        self.pending_messages -= len(items)
        self.pending_bytes -= sum(item.size for item in items)
        if self.pending_messages == 0:
            self._idle.set()
        limits = self._limits
        if (
            self._waiters
            and self.pending_messages <= limits.pending_messages_max * 3 // 4
            and self.pending_bytes <= limits.pending_bytes_max * 3 // 4
        ):
            waiters, self._waiters = self._waiters, deque()
            for waiter in waiters:
                waiter()

    def _dispose(self, item: Pending, reason: str) -> Pending:
        letter, detail = item.envelope.dead_letter(item.seq, reason)
        self.pending_bytes += letter.size - item.size
        # The look-up cannot tell of a letter whose seq belongs to another message.
        absent_at = math.inf if reason == SEQ_REUSED else item.absent_at
        return Pending(
            item.owner, item.standing, item.seq, letter, letter.size, absent_at, (reason, detail)
        )

    # Questions to the stream

    def _ask(self, index: int) -> int:
        """Have the lane's new questions answered, while it goes on with other devices.

        Returns:
            How many of them compare a message.
        """
        compared = 0
        for question in self._lanes[index].take_questions():
            if question.stored_at is None:
                self._crew.start(self._look_up(index, question), "look-up")
            else:
                compared += 1
                work = self._compare(index, question, question.stored_at)
                self._crew.start(work, "compare")
        return compared

    async def _look_up(self, index: int, question: Question) -> None:
        """How much of an outbox that was in doubt for too long is stored?"""
        began = time.perf_counter()
        seq, asked_at = await self.stored.last_seq(*question.items[0].standing.key)
        waiting = len(question.items)
        settled = self._lanes[index].found(question, seq, asked_at)
        _log.info(
            "publish_looked_up", lane=index, device=question.device, messages=waiting,
            found=len(settled),
        )  # fmt: skip
        if waiting > len(settled):
            self._observer.batch_retried("absent", waiting - len(settled))
        if settled:
            took_s = time.perf_counter() - began
            self._observer.batch_settled("lookup", len(settled), 0, took_s)
        self._go_on(index, settled)

    async def _compare(self, index: int, question: Question, sequence: int) -> None:
        """A duplicate nobody here published: is it the same message that is stored?"""
        began = time.perf_counter()
        first = question.items[0]
        same = await self.stored.same(first.envelope, sequence)
        settled = self._lanes[index].compared(question, same=same)
        if same:
            self._observer.batch_settled("round", 1, 1, time.perf_counter() - began)
        else:
            _log.warning("seq_reused", device=question.device, seq=first.seq, stored_at=sequence)
        self._go_on(index, settled)

    def _go_on(self, index: int, settled: list[Pending]) -> None:
        """A question was answered."""
        if settled:
            self._tell(settled)
            self._release(settled)
        lane = self._lanes[index]
        if lane.in_flight is None and lane.waiting:
            self._pump(index)


def _reason_of(batch: Batch) -> str:
    for answer in batch.answers.values():
        if answer.reason:
            return answer.reason
    return "timeout"
