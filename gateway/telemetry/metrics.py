"""Prometheus metrics of a process: what is counted, and what is read at each scrape.

The hooks of the other rooms are counted in `gateway/node/ops/observers.py`.

Labels come from fixed sets in our own code, never from devices: an id in a label would let a fleet
(or one hostile device) grow the exposition without bound.
"""

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

# Without this, each counter has a second series, which no dashboard shows.
disable_created_metrics()  # type: ignore[no-untyped-call]


_Family = GaugeMetricFamily | CounterMetricFamily


class Tally(Collector):
    """A counter for hot paths: a plain dictionary, turned into samples at the scrape.

    prometheus-client's own counter takes a lock and a lookup of its labels each time, which in a
    storm is a good part of what a refusal costs. All our counting is on the loop's thread.
    """

    def __init__(self, name: str, documentation: str, *labels: str) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = labels
        self.counts: dict[tuple[str, ...], int] = {} if labels else {(): 0}

    def inc(self, *values: str) -> None:
        counts = self.counts
        counts[values] = counts.get(values, 0) + 1

    def add(self, amount: int) -> None:
        """Of a counter without labels."""
        self.counts[()] += amount

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        for values, count in self.counts.items():
            family.add_metric(values, count)
        yield family


class _Read(Collector):
    """What is read when it is scraped, so that nothing is counted twice to be shown once."""

    def __init__(self) -> None:
        self._sources: list[tuple[type[_Family], str, str, Callable[[], float]]] = []
        self._choices: list[tuple[str, str, str, tuple[str, ...], Callable[[], str]]] = []

        self._infos: list[tuple[str, str, dict[str, str]]] = []

    def add(
        self, kind: type[_Family], name: str, documentation: str, source: Callable[[], float]
    ) -> None:
        self._sources.append((kind, name, documentation, source))

    def add_info(self, name: str, documentation: str, labels: dict[str, str]) -> None:
        self._infos.append((name, documentation, labels))

    def add_choice(
        self,
        name: str,
        documentation: str,
        label: str,
        choices: tuple[str, ...],
        source: Callable[[], str],
    ) -> None:
        self._choices.append((name, documentation, label, choices, source))

    def collect(self) -> Iterable[Metric]:
        for name, documentation, label, choices, chosen in self._choices:
            family = GaugeMetricFamily(name, documentation, labels=[label])
            for choice in choices:
                family.add_metric([choice], float(choice == chosen()))
            yield family
        for kind, name, documentation, source in self._sources:
            yield kind(name, documentation, value=source())
        for name, documentation, labels in self._infos:
            family = GaugeMetricFamily(name, documentation, labels=list(labels))
            family.add_metric(list(labels.values()), 1.0)
            yield family


class Metrics:
    """All metrics of a process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._read = _Read()
        self._registry.register(self._read)

    # What is counted

    def tally(self, name: str, documentation: str, *labels: str) -> Tally:
        """A counter for hot paths; its samples end with `_total`."""
        made = Tally(name, documentation, *labels)
        self._registry.register(made)
        return made

    def counter(self, name: str, documentation: str, *labels: str) -> Counter:
        """A counter; its samples end with `_total`."""
        return Counter(name, documentation, labels, registry=self._registry)

    def histogram(
        self, name: str, documentation: str, buckets: Sequence[float], *labels: str
    ) -> Histogram:
        return Histogram(name, documentation, labels, registry=self._registry, buckets=buckets)

    # What is read

    def gauge(self, name: str, documentation: str, source: Callable[[], float]) -> None:
        """Show `source()` as a gauge at each scrape."""
        if name.endswith("_total"):
            raise ValueError(f"{name}: only a counter is named _total; see `counted`")
        self._read.add(GaugeMetricFamily, name, documentation, source)

    def counted(self, name: str, documentation: str, source: Callable[[], float]) -> None:
        """Show `source()`, which only ever rises, as a counter at each scrape."""
        if not name.endswith("_total"):
            raise ValueError(f"{name}: a counter is named _total")
        self._read.add(CounterMetricFamily, name, documentation, source)

    def info(self, name: str, documentation: str, labels: dict[str, str]) -> None:
        """Show a gauge that is always 1, for what its labels say."""
        self._read.add_info(name, documentation, labels)

    def choice(
        self,
        name: str,
        documentation: str,
        label: str,
        choices: tuple[str, ...],
        source: Callable[[], str],
    ) -> None:
        """Show a gauge that is 1 for the one of `choices` that `source()` names."""
        self._read.add_choice(name, documentation, label, choices, source)

    def collect_from(self, collector: Collector) -> None:
        """Show what a part of this room counts by itself."""
        self._registry.register(collector)

    def exposition(self) -> tuple[bytes, str]:
        """Body and content type for `/metrics`."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def value(self, sample: str, labels: dict[str, str] | None = None) -> float:
        """The present value of a sample, 0 if it was never counted."""
        return self._registry.get_sample_value(sample, labels or {}) or 0.0
