"""How sinks and rules go on with the trace of an event. Pure.

The id of a span is made from what is known before the event is processed. So a rule can name its
span in what it sends, and a repeat by another process names the same one.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple, Protocol

from gateway.events.event import Event
from tidegate.wire.traceparent import Traceparent, read_traceparent

_HEADER = b"traceparent"
_SPAN_ID_BYTES = 8


class Traced(NamedTuple):
    """A sampled event."""

    parent: Traceparent
    """The span before."""
    span_id: bytes
    """Of the span of this consumer."""
    stream_seq: int


class EventTraces(Protocol):
    """Records batches that carry sampled events."""

    def processed(
        self, consumer: str, traced: Sequence[Traced], events: int, buried: int, took_s: float
    ) -> None:
        """A batch was written or delivered.

        Args:
            consumer: `sink/<name>` or `rule/<name>`.
            traced: its sampled events.
            events: how many it had.
            buried: how many of them became dead letters.
            took_s: how long it took.
        """

    def failed(
        self, consumer: str, traced: Sequence[Traced], events: int, error: str, took_s: float
    ) -> None:
        """A batch was not written, and will be tried again.

        Args:
            consumer: as for `processed`.
            traced: its sampled events.
            events: how many it had.
            error: why.
            took_s: until it failed.
        """


def traced_in(events: Sequence[Event], consumer: str) -> list[Traced]:
    """The sampled events among these."""
    found = []
    for event in events:
        parent = _parent_of(event)
        if parent is not None:
            found.append(Traced(parent, _span_id(parent, event, consumer), event.stream_seq))
    return found


def onward(event: Event, consumer: str) -> str:
    """The traceparent of what a consumer sends for this event: its own span, if it is sampled."""
    parent = _parent_of(event)
    if parent is None:
        return event.header(_HEADER)
    return str(parent._replace(span_id=_span_id(parent, event, consumer)))


def renamed(headers: bytes, event: Event, consumer: str) -> bytes:
    """Header lines copied from the event, with the span of the consumer in their traceparent."""
    was = event.header(_HEADER)
    return headers.replace(was.encode(), onward(event, consumer).encode()) if was else headers


def _parent_of(event: Event) -> Traceparent | None:
    text = event.header(_HEADER)
    parent = read_traceparent(text) if text else None
    return parent if parent is not None and parent.sampled else None


def _span_id(parent: Traceparent, event: Event, consumer: str) -> bytes:
    said = b"%b%d/%b" % (parent.trace_id + parent.span_id, event.position_seq, consumer.encode())
    return blake2b(said, digest_size=_SPAN_ID_BYTES).digest()
