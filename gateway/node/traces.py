"""The traces of a node: which messages are sampled, and where their spans go."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from gateway.process import Part, nothing
from gateway.settings import Trace
from gateway.stream.lanes.tracing import BatchTraces, Sampler
from gateway.telemetry.export import FLUSH_S, SpanExport
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.sampling import Sampling
from gateway.telemetry.spans import MessageTraces, Recorded
from gateway.tracing import open_export
from tidegate.wire import frames


@dataclass(frozen=True, slots=True)
class Traces:
    """The traces of a node."""

    sample: Sampler | None = None
    """Begins the spans of sampled messages; None if none are."""
    batches: BatchTraces | None = None
    """Records batches; None if nothing is exported."""
    export: SpanExport | None = None

    @property
    def features(self) -> tuple[str, ...]:
        """What `welcome` names."""
        return (*frames.FEATURES, frames.TRACE) if self.sample is not None else frames.FEATURES

    def part(self) -> Part:
        """The export, which stops after all that records spans."""
        if self.export is None:
            return Part("traces", nothing, nothing)
        return Part("traces", self.export.start, self.export.stop, 2 * FLUSH_S)


def traces_of(
    trace: Trace, node: str, metrics: Metrics, *, rng: random.Random, clock: Callable[[], float]
) -> Traces:
    """
    Raises:
        TelemetryError: the spans cannot be exported.
    """
    export = open_export(trace, process="gateway", instance=node, rng=rng)
    if export is not None:
        metrics.collect_from(export)
    if not trace.sample_ratio:
        return Traces(export=export)
    sampling = Sampling(trace.sample_ratio, trace.sampled_per_s, rng=rng, clock=clock)
    if export is None:
        return Traces(MessageTraces(sampling, _forget).sampler())
    messages = MessageTraces(sampling, export.record)
    return Traces(messages.sampler(), messages, export)


def _forget(_span: Recorded) -> None:
    """Without an endpoint only the `traceparent` of a message is made."""
