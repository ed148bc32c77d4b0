"""OpenTelemetry spans of a device's messages. Needs the extra: `pip install tidegate[otel]`.

    from opentelemetry import trace
    from tidegate.otel import DeviceTraces

    async with Device(url, credential, outbox=path, traces=DeviceTraces(trace.get_tracer("car"))):

One span a message, from `send` until it is settled. It is a child of the span in which the
application called `send`. A gateway with the feature `trace` goes on with it.
"""

from typing import Final

from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer

from tidegate.wire.traceparent import Traceparent

OPEN_MAX: Final = 10_000
"""Spans of messages that are not settled. The span of a further message ends when it is queued."""


class DeviceTraces:
    """The spans of one device. Satisfies `tidegate.tracing.MessageTraces`."""

    def __init__(self, tracer: Tracer) -> None:
        """
        Args:
            tracer: of the application, whose sampler decides which messages are traced.
        """
        self._tracer = tracer
        self._open: dict[int, Span] = {}

    def begin(self, message_type: str) -> Span:
        attributes = {"tidegate.type": message_type}
        return self._tracer.start_span(
            "tidegate send", kind=SpanKind.PRODUCER, attributes=attributes
        )

    def queued(self, begun: Span, number: int) -> None:
        begun.set_attribute("tidegate.number", number)
        begun.add_event("queued")
        if begun.get_span_context().trace_flags.sampled and len(self._open) < OPEN_MAX:
            self._open[number] = begun
        else:
            begun.end()

    def failed(self, begun: Span, error: str) -> None:
        begun.set_status(StatusCode.ERROR, error)
        begun.end()

    def trace_of(self, number: int) -> str | None:
        span = self._open.get(number)
        if span is None:
            return None
        context = span.get_span_context()
        ids = context.trace_id.to_bytes(16, "big"), context.span_id.to_bytes(8, "big")
        return str(Traceparent(*ids))

    def settled(self, number: int) -> None:
        for queued in [each for each in self._open if each <= number]:
            self._open.pop(queued).end()

    def rejected(self, number: int, error: str) -> None:
        span = self._open.pop(number, None)
        if span is not None:
            self.failed(span, f"rejected: {error}")

    def closed(self) -> None:
        while self._open:
            _, span = self._open.popitem()
            self.failed(span, "not acknowledged when the device was closed")
