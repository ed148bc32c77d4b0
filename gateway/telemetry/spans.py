"""Spans of a process, before they are exported: plain values, made only for what is sampled."""

import time
from binascii import hexlify
from collections.abc import Callable, Sequence
from typing import ClassVar, Final, Protocol

from msgspec import UNSET, Struct

from gateway.telemetry.sampling import Ids, Sampling
from tidegate.wire.frames import Message, Unusable
from tidegate.wire.traceparent import Traceparent

SERVER: Final = 2
CLIENT: Final = 3
PRODUCER: Final = 4
CONSUMER: Final = 5
"""Kinds of spans, as the protocol numbers them (`Span.SpanKind` of opentelemetry-proto)."""
_LINKS_MAX: Final = 8
"""Batches that a message names. One that was repeated more often names the first ones."""

Attributes = tuple[tuple[str, str | int], ...]


class Span(Struct, frozen=True):
    """A span that has ended. Times are Unix nanoseconds."""

    name: str
    kind: int
    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    """Empty for the first span of a trace."""
    start_ns: int
    end_ns: int
    attributes: Attributes
    links: tuple[Traceparent, ...] = ()
    error: str = ""
    """Why it failed; empty if it did not."""


Key = tuple[str, str, str]
"""Tenant, device and outbox."""


class Recorded(Protocol):
    """A span that has ended: a `Span`, or one that makes its members when it is exported."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> int: ...
    @property
    def trace_id(self) -> bytes: ...
    @property
    def span_id(self) -> bytes: ...
    @property
    def parent_id(self) -> bytes: ...
    @property
    def start_ns(self) -> int: ...
    @property
    def end_ns(self) -> int: ...
    @property
    def attributes(self) -> Attributes: ...
    @property
    def links(self) -> tuple[Traceparent, ...]: ...
    @property
    def error(self) -> str: ...


Record = Callable[[Recorded], None]
"""Takes a span that has ended. Never waits."""


class Linked(Protocol):
    """A span of one message, which can be linked to the span of its batch."""

    def link(self, batch: Traceparent) -> None:
        """The message was in the batch of this span."""


class MessageSpan(Struct, eq=False, gc=False):
    """The span of one message on its way from the device into a stream.

    It is its own record when it has ended, and writes its attributes only when it is exported: most
    of what a sampled message costs is objects that are made for it.

    Satisfies `MessageTrace` of the stream's room, and `Recorded`.
    """

    record: Record
    """Takes it when it has ended."""
    trace_id: bytes
    parent_id: bytes
    """The device's span; empty if the trace begins here."""
    span_id: bytes
    key: Key
    message_type: str
    seq: int
    start_ns: int
    began: float
    """Of the monotonic clock, in seconds: a correction of the wall clock must not change the length
    of a span."""
    end_ns: int = 0
    links: tuple[Traceparent, ...] = ()
    error: str = ""

    name: ClassVar[str] = "tidegate message"
    kind: ClassVar[int] = SERVER

    @property
    def header(self) -> bytes:
        """The `traceparent` of what comes after, a complete header line."""
        return b"traceparent:00-%b-%b-01\r\n" % (hexlify(self.trace_id), hexlify(self.span_id))

    @property
    def attributes(self) -> Attributes:
        tenant, device, outbox = self.key
        return (
            ("tidegate.tenant", tenant),
            ("tidegate.device", device),
            ("tidegate.type", self.message_type),
            ("tidegate.outbox", outbox),
            ("tidegate.seq", self.seq),
        )

    def link(self, batch: Traceparent) -> None:
        if len(self.links) < _LINKS_MAX:
            self.links = (*self.links, batch)

    def settled(self, reject: str) -> None:
        """The message is stored; in the dead letters, if `reject` says why."""
        self._end(f"dead letter: {reject}" if reject else "")

    def superseded(self) -> None:
        """The message is dropped, because a newer session of its device sends it again."""
        self._end("superseded")

    def _end(self, error: str) -> None:
        self.error = error
        self.end_ns = self.start_ns + int((time.perf_counter() - self.began) * 1e9)
        self.record(self)


Sampler = Callable[[Sequence[Message | Unusable], Key], dict[int, MessageSpan] | None]
"""Begins the spans of those messages of a frame that are sampled; by `seq`."""


class MessageTraces:
    """Begins the spans of sampled messages of a node, and records the batches that carry them."""

    def __init__(self, sampling: Sampling, record: Record) -> None:
        self._sampling = sampling
        self._ids = sampling.ids
        self._record = record

    def sampler(
        self,
    ) -> Callable[[Sequence[Message | Unusable], Key], dict[int, MessageSpan] | None]:
        """What is called with the messages of a frame, and their tenant, device and outbox.

        A message that is not sampled must cost no more than a look at its trace.
        """
        sampling, span = self._sampling, self._span
        left = sampling.until_hit()

        def sample(
            messages: Sequence[Message | Unusable], key: Key
        ) -> dict[int, MessageSpan] | None:
            nonlocal left
            count, place = len(messages), left - 1
            for message in messages:
                if message.trace is not UNSET:
                    spans, left = self._begin(messages, key, left)
                    return spans
            if place >= count:
                left -= count
                return None
            found = {}
            while place < count:  # only the hits are looked at again
                message = messages[place]
                if isinstance(message, Message):
                    parent = sampling.choose(UNSET, hit=True)
                    if parent is not None:
                        found[message.seq] = span(message, key, parent)
                place += sampling.until_hit()
            left = place - count + 1
            return found

        return sample

    def _begin(
        self, messages: Sequence[Message | Unusable], key: Key, left: int
    ) -> tuple[dict[int, MessageSpan], int]:
        """The spans of a frame in which a device asks, and the messages until the next hit."""
        sampling, spans = self._sampling, {}
        for message in messages:
            left -= 1
            hit = not left
            if hit:
                left = sampling.until_hit()
            if (hit or message.trace is not UNSET) and isinstance(message, Message):
                parent = sampling.choose(message.trace, hit)
                if parent is not None:
                    spans[message.seq] = self._span(message, key, parent)
        return spans, left

    def _span(self, message: Message, key: Key, parent: Traceparent) -> MessageSpan:
        return MessageSpan(
            self._record,
            parent.trace_id,
            parent.span_id,
            self._ids.span_id(),
            key,
            message.type,
            message.seq,
            time.time_ns(),
            time.perf_counter(),
        )

    def landed(
        self, traces: Sequence[Linked], kind: str, messages: int, took_s: float, trouble: str
    ) -> None:
        """Record the span of a batch, and link its sampled messages to it.

        See `BatchTraces` of the stream's room.
        """
        trace_id, span_id = self._ids.trace_id(), self._ids.span_id()
        batch = Traceparent(trace_id, span_id)
        for trace in traces:
            trace.link(batch)
        end_ns = time.time_ns()
        attributes = (
            ("messaging.batch.message_count", messages),
            ("tidegate.batch.kind", kind),
            ("tidegate.batch.sampled", len(traces)),
        )
        start_ns = end_ns - int(took_s * 1e9)
        self._record(
            Span(
                "tidegate publish",
                PRODUCER,
                trace_id,
                span_id,
                b"",
                start_ns,
                end_ns,
                attributes,
                (),
                trouble,
            )
        )


class ConsumedTraces:
    """Records what a sink or a rule does with sampled events."""

    def __init__(self, ids: Ids, record: Record) -> None:
        self._ids = ids
        self._record = record

    def processed(
        self,
        consumer: str,
        traced: Sequence[tuple[Traceparent, bytes, int]],
        events: int,
        buried: int,
        took_s: float,
    ) -> None:
        """Record a batch and its sampled events. See `EventTraces` of the consumers' room."""
        buried_in_it = ("tidegate.batch.dead_letters", buried)
        batch, times = self._batch(consumer, len(traced), events, took_s, (buried_in_it,))
        name = f"tidegate {consumer}"
        for parent, span_id, stream_seq in traced:
            about = (("tidegate.consumer", consumer), ("tidegate.stream_seq", stream_seq))
            ids = (parent.trace_id, span_id, parent.span_id)
            self._record(Span(name, CONSUMER, *ids, *times, about, (batch,)))

    def failed(
        self,
        consumer: str,
        traced: Sequence[tuple[Traceparent, bytes, int]],
        events: int,
        error: str,
        took_s: float,
    ) -> None:
        """Record a batch that failed, linked to the spans before it: its sampled events have no
        span of their own until they are written. See `EventTraces` of the consumers' room.
        """
        before = tuple(parent for parent, _, _ in traced[:_LINKS_MAX])
        self._batch(consumer, len(traced), events, took_s, links=before, error=error)

    def _batch(
        self,
        consumer: str,
        sampled: int,
        events: int,
        took_s: float,
        more: Attributes = (),
        links: tuple[Traceparent, ...] = (),
        error: str = "",
    ) -> tuple[Traceparent, tuple[int, int]]:
        """Record the span of a batch; the span, and when it began and ended."""
        end_ns = time.time_ns()
        times = (end_ns - int(took_s * 1e9), end_ns)
        batch = Traceparent(self._ids.trace_id(), self._ids.span_id())
        attributes: Attributes = (
            ("tidegate.consumer", consumer),
            ("messaging.batch.message_count", events),
            *more,
            ("tidegate.batch.sampled", sampled),
        )
        name = f"tidegate {consumer} batch"
        self._record(Span(name, CLIENT, *batch[:2], b"", *times, attributes, links, error))
        return batch, times
