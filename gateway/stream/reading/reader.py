"""Reads a stream in order, each message once, whatever happens to the connection.

The reader uses a pull consumer without acks, which the server deletes when it is not asked for a
while. Only the position of the reader counts. It makes a new consumer behind the last accepted
message when

- the sequence of the consumer has a gap: a message was lost on its way,
- the consumer is silent: no message and no heartbeat for `SILENCE_S`,
- the consumer is gone: deleted, its server restarted, its leader changed,
- the connection is another one.

The ordered consumer of nats-py 2.16 does not fit: it replays the whole stream if it is reset before
its first message, and it moves its position before its queue has taken the message.

The reader asks for no more than it has room for, so memory is bounded by `room_messages` and by
`room_bytes` beyond one message.
"""

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar

import nats.errors
import nats.js.errors
import structlog
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from gateway.jitter import full_jitter_s
from gateway.stream.errors import Unreachable
from gateway.stream.link.client import LinkClient
from gateway.stream.link.dialing import describe
from gateway.stream.reading.pull_consumer import PullConsumer
from gateway.stream.reading.read_buffer import ReadBuffer

_log = structlog.get_logger(__name__)

SILENCE_S: Final = 5.0
"""More than two heartbeats."""
_INACTIVE_S: Final = 30.0
_WATCH_S: Final = 0.5
_RETRY_S: Final = 0.2
_RETRY_MAX_S: Final = 5.0
_ACK_TOKENS: Final = 9

T = TypeVar("T")

Make = Callable[[str, bytes, bytes, int, int], T]
"""Makes an item of subject, header block, payload, stream sequence and Unix nanoseconds."""


@dataclass(frozen=True, slots=True)
class StartAt:
    """Where a consumer begins: at a sequence, at a time, at the last message of each subject, or at
    what comes from now on.
    """

    seq: int = 0
    time: datetime | None = None
    now: bool = False
    last_of_each: bool = False


class Link(Protocol):
    """A connection that comes back by itself."""

    @property
    def client(self) -> LinkClient | None:
        """The live client, or None."""

    async def wait_up(self) -> LinkClient:
        """Wait for a live client."""


class OneConnection:
    """A connection that does not come back, for a command that ends with it."""

    def __init__(self, client: LinkClient) -> None:
        self._client = client

    @property
    def client(self) -> LinkClient | None:
        return self._client if self._client.is_connected else None

    async def wait_up(self) -> LinkClient:
        """
        Raises:
            Unreachable: the connection is lost.
        """
        if not self._client.is_connected:
            raise Unreachable("the connection to NATS is lost")
        return self._client


class StreamReader(Generic[T]):
    """One reader of one stream. Its owner runs `run` as a task and takes what has come."""

    def __init__(
        self,
        link: Link,
        stream: str,
        subjects: Sequence[str],
        *,
        start: Callable[[LinkClient, int], Awaitable[StartAt]],
        make: Make[T],
        room_messages: int,
        room_bytes: int,
        rng: random.Random,
        headers_only: bool = False,
    ) -> None:
        """
        Args:
            link: the connection.
            stream: what to read.
            subjects: filters, which must not overlap.
            start: says where a new consumer begins, given the last accepted sequence (0 before the
                first). It may check that the stream is still the one it was; what it raises ends
                `run`.
            make: makes the items.
            room_messages: messages that are asked for and not yet taken.
            room_bytes: bytes beyond which nothing is asked for.
            rng: source of jitter.
            headers_only: whether payloads are left out.
        """
        self._link = link
        self._stream = stream
        self._config = partial(_config, list(subjects), headers_only=headers_only)
        self._start = start
        self._make = make
        self._rng = rng
        self._buffer: ReadBuffer[T] = ReadBuffer(room_messages=room_messages, room_bytes=room_bytes)
        self._consumer: PullConsumer | None = None
        self.accepted = 0
        """The last stream sequence that was accepted."""
        self.pending = 0
        """Messages in the stream behind it that match, as the server last said."""
        self.begun = asyncio.Event()
        """Set once there has been a consumer: from then on `pending` means something."""
        self.renewed = 0
        """How often the consumer was made anew."""

    def __len__(self) -> int:
        return len(self._buffer)

    @property
    def arrived(self) -> asyncio.Event:
        """Set while there is something to take."""
        return self._buffer.arrived

    def take(self, messages_max: int, bytes_max: int) -> list[T]:
        """What has come, in order, at most so much; at least one message if there is any."""
        taken = self._buffer.take(messages_max, bytes_max)
        self._ask()
        return taken

    async def gather(self, messages_max: int, bytes_max: int, linger_s: float) -> list[T]:
        """Wait for messages, and then for more of them, but for no longer than `linger_s` after
        the first has come. Messages that came while nobody waited have lingered already.
        """
        await self._buffer.wait(messages_max, bytes_max, linger_s)
        return self.take(messages_max, bytes_max)

    async def run(self) -> None:
        """Read until cancelled.

        Raises:
            Exception: what `start` raised, other than errors of NATS, which are waited out.
        """
        failures = 0
        while True:
            client = await self._link.wait_up()
            try:
                consumer = await self._open(client)
            except (nats.errors.Error, TimeoutError) as exc:
                failures += 1
                _log.warning("reader_waits", stream=self._stream, error=describe(exc))
                await asyncio.sleep(self._wait_s(failures))
                continue
            try:
                reason = await self._watch(consumer)
            finally:
                self._consumer = None
                await consumer.close()
            failures = 0 if consumer.delivered else failures + 1
            self.renewed += 1
            _log.info("reader_renewed", stream=self._stream, reason=reason, after=self.accepted)
            if failures:
                await asyncio.sleep(self._wait_s(failures))

    def _wait_s(self, failures: int) -> float:
        return full_jitter_s(self._rng, failures, first_s=_RETRY_S, max_s=_RETRY_MAX_S)

    async def _open(self, client: LinkClient) -> PullConsumer:
        start = await self._start(client, self.accepted)
        name = f"tidegate-{secrets.token_hex(8)}"
        inbox = client.new_inbox()
        consumer = PullConsumer(client, self._stream, name, inbox)
        consumer.subscription = await client.subscribe_raw(
            inbox, partial(self._on_message, consumer)
        )
        try:
            info = await client.jetstream().add_consumer(self._stream, self._config(name, start))
        except BaseException:  # failed or cancelled: nobody else has this subscription yet
            await consumer.close()
            raise
        self.pending = info.num_pending or 0
        self.begun.set()
        self._consumer = consumer
        self._ask()
        return consumer

    async def _watch(self, consumer: PullConsumer) -> str:
        """Wait until the consumer is of no use any more. Returns why."""
        loop = asyncio.get_running_loop()
        heard_at = loop.time()
        while True:
            if await consumer.ended.beat(_WATCH_S):
                return consumer.reason
            if self._link.client is not consumer.client:
                return "connection"
            if consumer.heard or not consumer.asked:
                consumer.heard, heard_at = False, loop.time()
            elif loop.time() - heard_at > SILENCE_S:
                return "silence"
            self._ask()

    def _ask(self) -> None:
        """Ask for what there is room for, in steps of a quarter of the room."""
        consumer = self._consumer
        if consumer is not None and not consumer.ended.is_set():
            room = self._buffer.room(consumer.asked)
            if room:
                consumer.pull(room)

    def _on_message(
        self,
        consumer: PullConsumer,
        subject: bytes,
        reply: bytes,
        data: bytes,
        headers: bytes | None,
    ) -> None:
        if consumer is not self._consumer or consumer.ended.is_set():
            return
        consumer.heard = (
            True  # `_watch` reads this now and then; reading the clock for each message costs more
        )
        tokens = reply.split(b".")
        if len(tokens) < _ACK_TOKENS:
            consumer.on_status(headers or b"")
            self._ask()
            return
        # $JS.ACK.[domain.account.]stream.consumer.deliveries.stream seq.consumer seq.time.pending
        first = 4 if len(tokens) == _ACK_TOKENS else 6
        stream_seq, consumer_seq = int(tokens[first + 1]), int(tokens[first + 2])
        consumer.delivered += 1
        if consumer_seq != consumer.delivered:
            consumer.end("gap")
            return
        consumer.asked -= 1
        self.pending = int(tokens[first + 4])
        if stream_seq <= self.accepted:
            return
        self.accepted = stream_seq
        size = len(subject) + len(data) + (len(headers) if headers else 0)
        item = self._make(
            subject.decode(), headers or b"", data, stream_seq, int(tokens[first + 3])
        )
        self._buffer.add(item, size)


def _config(
    subjects: list[str], name: str, start: StartAt, *, headers_only: bool
) -> ConsumerConfig:
    policy: dict[str, Any] = {"deliver_policy": DeliverPolicy.ALL}
    if start.now:
        policy = {"deliver_policy": DeliverPolicy.NEW}
    elif start.last_of_each:
        policy = {"deliver_policy": DeliverPolicy.LAST_PER_SUBJECT}
    elif start.time is not None:
        policy = {"deliver_policy": DeliverPolicy.BY_START_TIME, "opt_start_time": start.time}
    elif start.seq > 1:
        policy = {"deliver_policy": DeliverPolicy.BY_START_SEQUENCE, "opt_start_seq": start.seq}
    one = subjects[0] if len(subjects) == 1 else None
    return ConsumerConfig(
        name=name,
        description="Tidegate reader",
        ack_policy=AckPolicy.NONE,
        filter_subject=one,
        filter_subjects=None if one is not None else subjects,
        inactive_threshold=_INACTIVE_S,
        mem_storage=True,
        num_replicas=1,
        headers_only=headers_only or None,
        **policy,
    )
