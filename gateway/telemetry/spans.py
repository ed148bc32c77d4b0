"""Spans of a process, before they are exported: plain values, made only for what is sampled."""

import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

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
Record = Callable[[Span], None]
"""Takes a span that has ended. Never waits."""


class Linked(Protocol):
    """A span of one message, which can be linked to the span of its batch."""

    def link(self, batch: Traceparent) -> None:
        """The message was in the batch of this span."""


class MessageSpan:
    """The span of one message on its way from the device into a stream.

    Satisfies `MessageTrace` of the stream's room.
    """

    __slots__ = ("_attributes", "_began", "_links", "_parent", "_record", "_span_id", "_start_ns")

    def __init__(
        self, parent: Traceparent, span_id: bytes, attributes: Attributes, record: Record
    ) -> None:
        """
        Args:
            parent: the device's span; without a span id if the trace begins here.
            span_id: of this span.
            attributes: of this span.
            record: takes it when it has ended.
        """
        self._parent = parent
        self._span_id = span_id
        self._attributes = attributes
        self._record = record
        self._links: list[Traceparent] = []
        self._start_ns = time.time_ns()
        self._began = time.perf_counter()

    @property
    def header(self) -> bytes:
        """The `traceparent` of what comes after, a complete header line."""
        return b"traceparent:00-%b-%b-01\r\n" % (
            self._parent.trace_id.hex().encode(),
            self._span_id.hex().encode(),
        )

    def link(self, batch: Traceparent) -> None:
        if len(self._links) < _LINKS_MAX:
            self._links.append(batch)

    def settled(self, reject: str) -> None:
        """The message is stored; in the dead letters, if `reject` says why."""
        self._end(f"dead letter: {reject}" if reject else "")

    def superseded(self) -> None:
        """The message is dropped, because a newer session of its device sends it again."""
        self._end("superseded")

    def _end(self, error: str) -> None:
        # The length of a span is measured: a correction of the wall clock must not change it.
        took_ns = int((time.perf_counter() - self._began) * 1e9)
        self._record(
            Span(
                "tidegate message",
                SERVER,
                self._parent.trace_id,
                self._span_id,
                self._parent.span_id,
                self._start_ns,
                self._start_ns + took_ns,
                self._attributes,
                tuple(self._links),
                error,
            )
        )


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
        left, begin = self._sampling.until_hit(), self._begin

        def sample(
            messages: Sequence[Message | Unusable], key: Key
        ) -> dict[int, MessageSpan] | None:
            nonlocal left
            before, left = left, left - len(messages)
            if left > 0:
                for message in messages:
                    if message.trace is not UNSET:
                        break
                else:
                    return None
            spans, left = begin(messages, key, before)
            return spans

        return sample

    def _begin(
        self, messages: Sequence[Message | Unusable], key: Key, left: int
    ) -> tuple[dict[int, MessageSpan], int]:
        """The spans of a frame, by `seq`, and the messages until the next hit."""
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
        tenant, device, outbox = key
        attributes = (
            ("tidegate.tenant", tenant),
            ("tidegate.device", device),
            ("tidegate.type", message.type),
            ("tidegate.outbox", outbox),
            ("tidegate.seq", message.seq),
        )
        return MessageSpan(parent, self._ids.span_id(), attributes, self._record)

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
        end_ns = time.time_ns()
        start_ns = end_ns - int(took_s * 1e9)
        batch = Traceparent(self._ids.trace_id(), self._ids.span_id())
        attributes = (
            ("tidegate.consumer", consumer),
            ("messaging.batch.message_count", events),
            ("tidegate.batch.dead_letters", buried),
            ("tidegate.batch.sampled", len(traced)),
        )
        times = (start_ns, end_ns)
        name = f"tidegate {consumer}"
        self._record(Span(f"{name} batch", CLIENT, *batch[:2], b"", *times, attributes))
        for parent, span_id, stream_seq in traced:
            about = (("tidegate.consumer", consumer), ("tidegate.stream_seq", stream_seq))
            ids = (parent.trace_id, span_id, parent.span_id)
            self._record(Span(name, CONSUMER, *ids, *times, about, (batch,)))
