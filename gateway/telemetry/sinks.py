"""Metrics of a process that runs sinks or rules, whose names come from the operator's own file."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

_SECONDS_BUCKETS: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_UNITS: Final = {"sink": "rows", "rule": "events"}
_ROWS_BUCKETS: Final = (1, 10, 100, 500, 1_000, 2_000, 5_000, 10_000, 100_000)


class SinkView(Protocol):
    """One sink, as far as gauges are concerned."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def running(self) -> bool:
        """Whether this process owns it and writes."""

    @property
    def position(self) -> int:
        """The last stream sequence that is processed."""

    @property
    def lag_messages(self) -> float:
        """Events in the stream that are not yet written; NaN if that is not known."""

    @property
    def lag_s(self) -> float:
        """How long ago the oldest of them was stored."""

    @property
    def retention_used(self) -> float:
        """That, as a share of how long the stream keeps an event."""


class WaitingView(Protocol):
    """Dead letters of one kind."""

    @property
    def stage(self) -> str:
        """Where they became dead letters."""

    @property
    def error(self) -> str:
        """Why."""

    @property
    def letters(self) -> int:
        """How many were not sent again."""


class LettersView(Protocol):
    """What waits in the dead letters."""

    def waiting(self) -> Sequence[WaitingView]:
        """By kind."""

    def oldest_age_s(self) -> float | None:
        """Age of the oldest; None while it is not known."""


class SinkMetrics:
    """All metrics of such a process. Satisfies the observer of sinks."""

    def __init__(self, kind: str = "sink") -> None:
        """
        Args:
            kind: what runs, `sink` or `rule`: part of each name, and the label.
        """
        self._kind = kind
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

        def counter(name: str, documentation: str) -> Counter:
            return Counter(f"tidegate_{kind}_{name}", documentation, [kind], registry=registry)

        def histogram(name: str, documentation: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(
                f"tidegate_{kind}_{name}",
                documentation,
                [kind],
                registry=registry,
                buckets=buckets,
            )

        unit = _UNITS[kind]
        self._rows = counter(unit, "Events that became rows, or that a rule has delivered.")
        self._letters = counter("dead_letters", "Events that the target cannot take.")
        self._repeated = counter("batches_repeated", "Batches that were not settled at once.")
        self._expired = counter(
            "expired_sequences", "Stream sequences that expired before they were read."
        )
        self._seconds = histogram(
            "commit_seconds", "From the begin of a batch to the end of its work.", _SECONDS_BUCKETS
        )
        self._batch = histogram(f"batch_{unit}", "Events of a batch.", _ROWS_BUCKETS)

    def watch(self, sinks: Sequence[SinkView], nats_up: Callable[[], bool]) -> None:
        """Show the gauges of these sinks, and whether NATS answers."""
        self._registry.register(_Gauges(self._kind, sinks, nats_up))

    def gauge(self, name: str, documentation: str, source: Callable[[], float]) -> None:
        """Show `source()` as a gauge at each scrape."""
        self._registry.register(_Gauge(name, documentation, source))

    def watch_letters(self, letters: "LettersView") -> None:
        """Show what waits in the dead letters."""
        self._registry.register(_LetterGauges(letters))

    def collect_from(self, collector: Collector) -> None:
        """Show what a part of this room counts by itself."""
        self._registry.register(collector)

    def written(self, sink: str, events: Sequence[object], buried: int, took_s: float) -> None:
        rows = len(events) - buried
        self._rows.labels(sink).inc(rows)
        self._letters.labels(sink).inc(buried)
        self._seconds.labels(sink).observe(took_s)
        self._batch.labels(sink).observe(len(events))

    def repeated(self, sink: str, events: Sequence[object], error: str, took_s: float) -> None:
        del events, error, took_s
        self._repeated.labels(sink).inc()

    def expired(self, sink: str, sequences: int) -> None:
        self._expired.labels(sink).inc(sequences)

    def exposition(self) -> tuple[bytes, str]:
        """Body and content type of the Prometheus exposition."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


_GAUGES: Final[tuple[tuple[str, str, Callable[[SinkView], float]], ...]] = (
    ("running", "1 if this process owns it.", lambda s: float(s.running)),
    ("position", "Last stream sequence processed.", lambda s: s.position),
    ("lag_messages", "Events not yet written.", lambda s: s.lag_messages),
    ("lag_seconds", "Age of the oldest event not yet written.", lambda s: s.lag_s),
    (
        "retention_used_ratio",
        "That age over how long the stream keeps an event; at 1 events are lost.",
        lambda s: s.retention_used,
    ),
)


class _Gauges(Collector):
    def __init__(self, kind: str, sinks: Sequence[SinkView], nats_up: Callable[[], bool]) -> None:
        self._kind = kind
        self._sinks = sinks
        self._nats_up = nats_up

    def collect(self) -> Iterable[Metric]:
        for name, documentation, read in _GAUGES:
            full_name = f"tidegate_{self._kind}_{name}"
            family = GaugeMetricFamily(full_name, documentation, labels=[self._kind])
            for sink in self._sinks:
                family.add_metric([sink.name], read(sink))
            yield family
        yield GaugeMetricFamily(
            f"tidegate_{self._kind}_nats_up",
            "1 while NATS answers.",
            value=float(self._nats_up()),
        )


class _Gauge(Collector):
    def __init__(self, name: str, documentation: str, source: Callable[[], float]) -> None:
        self._name = name
        self._documentation = documentation
        self._source = source

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(self._name, self._documentation, value=self._source())


class _LetterGauges(Collector):
    """The streams are the truth, so every process of sinks or rules shows the same figures."""

    def __init__(self, letters: LettersView) -> None:
        self._letters = letters

    def collect(self) -> Iterable[Metric]:
        age_s = self._letters.oldest_age_s()
        if age_s is None:
            return
        yield GaugeMetricFamily(
            "tidegate_dead_letters_oldest_seconds",
            "Age of the oldest dead letter that was not sent again; 0 if there is none.",
            value=age_s,
        )
        family = GaugeMetricFamily(
            "tidegate_dead_letters_waiting",
            "Dead letters that were not sent again.",
            labels=["stage", "error"],
        )
        for each in self._letters.waiting():
            family.add_metric([each.stage, each.error], each.letters)
        yield family
