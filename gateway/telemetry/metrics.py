"""Prometheus metrics: the hooks of the other rooms, carried out with prometheus-client.

Labels come from fixed sets in our own code, never from devices: an id in a label would let a fleet
(or one hostile device) grow the exposition without bound.
"""

from collections.abc import Callable, Iterable
from typing import Final

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

_ACK_BUCKETS: Final = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
)  # fmt: skip
_BATCH_BUCKETS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_LEAD_BUCKETS: Final = (1, 2, 5, 10, 20, 60, 120, 300, 600, 900)
_SESSION_BUCKETS: Final = (1, 10, 60, 600, 3600, 6 * 3600, 24 * 3600)


# A second series for each counter that nobody graphs.
disable_created_metrics()  # type: ignore[no-untyped-call]


_Family = GaugeMetricFamily | CounterMetricFamily


class _Tally(Collector):
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
    """All metrics of a node. Satisfies the observers of edge and stream."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self._read = _Read()
        registry.register(self._read)

        def counter(name: str, documentation: str, *labels: str) -> Counter:
            return Counter(name, documentation, labels, registry=registry)

        def histogram(
            name: str, documentation: str, buckets: Iterable[float], *labels: str
        ) -> Histogram:
            return Histogram(name, documentation, labels, registry=registry, buckets=tuple(buckets))

        def tally(name: str, documentation: str, *labels: str) -> _Tally:
            made = _Tally(name, documentation, *labels)
            registry.register(made)
            return made

        self._accepted = tally("tidegate_accepted", "TCP connections accepted.")
        self._accept_failures = counter(
            "tidegate_accept_failures",
            "Times accepting paused because the system had no resources.",
        )
        self._refused = tally(
            "tidegate_refused", "Handshakes refused, by error and reason.", "error", "reason"
        )
        self._opened = counter("tidegate_sessions_opened", "WebSocket sessions opened.")
        self._closed = counter("tidegate_sessions_closed", "Sessions ended, by cause.", "cause")
        self._session_seconds = histogram(
            "tidegate_session_seconds", "How long sessions lasted.", _SESSION_BUCKETS
        )
        self._received = tally("tidegate_messages_received", "Messages received from devices.")
        self._received_bytes = tally(
            "tidegate_received_bytes", "Bytes of message frames received from devices."
        )
        self._acks = tally("tidegate_ack_frames", "Ack frames sent to devices.")
        self._commands = counter(
            "tidegate_commands", "Commands for devices, by outcome.", "outcome"
        )
        self._stored = counter(
            "tidegate_messages_settled",
            "Messages stored, by kind of batch (lookup: found in the stream).",
            "kind",
        )
        self._duplicates = counter(
            "tidegate_messages_duplicate",
            "Messages the stream had already, where the server says so (fast ingest does not).",
        )
        self._batch_seconds = histogram(
            "tidegate_publish_seconds", "From sending a batch to its PubAck.", _ACK_BUCKETS
        )
        self._batch_messages = histogram(
            "tidegate_batch_messages", "Messages a batch.", _BATCH_BUCKETS
        )
        self._retried = counter(
            "tidegate_publish_retried", "Messages published again, by reason.", "reason"
        )
        self._dead = counter(
            "tidegate_dead_letters", "Messages stored in the dead letters, by error.", "error"
        )
        self._off_schema = counter(
            "tidegate_schema_violations",
            "Events that do not fit the schema of their type; other: of a type without one.",
            "type",
        )
        self._lookups = counter(
            "tidegate_resume_lookups", "Devices whose place was looked up in the stream."
        )
        self._server_restarts = counter(
            "tidegate_nats_server_restarts", "Times the embedded nats-server died and came back."
        )
        self._reconnects = counter("tidegate_nats_reconnects", "Connections to NATS made.")
        self._slowed = counter(
            "tidegate_reads_slowed",
            "Times a connection was read more slowly for what it sent beside messages.",
        )
        self._answers_lost = counter(
            "tidegate_answers_lost", "Refusals nobody waited for: the device had hung up."
        )
        self._parked = counter("tidegate_knocks_parked", "Knocks parked in the handshake.", "rank")
        self._tickets = tally("tidegate_tickets", "Tickets, by what became of them.", "outcome")
        self._tickets_invalid = counter(
            "tidegate_tickets_invalid", "Tickets worth nothing, by reason.", "reason"
        )
        self._lateness = histogram(
            "tidegate_ticket_lateness_seconds", "After its slot, a ticket shown.", _ACK_BUCKETS
        )
        self._lead = histogram(
            "tidegate_ticket_lead_seconds", "How far ahead slots were promised.", _LEAD_BUCKETS
        )
        self._given_back = counter(
            "tidegate_slots_given_back", "Admissions into slots that nobody had claimed."
        )
        self._past_horizon = tally("tidegate_past_horizon", "Knocks that found the calendar full.")
        self._over_meter = counter(
            "tidegate_admitted_over_meter", "Promises kept although R had no credit for them."
        )
        self._kinds = {
            kind: self._stored.labels(kind)
            for kind in ("single", "atomic", "fast", "round", "lookup")
        }

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

    def exposition(self) -> tuple[bytes, str]:
        """Body and content type for `/metrics`."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def value(self, sample: str, labels: dict[str, str] | None = None) -> float:
        """The present value of a sample, 0 if it was never counted."""
        return self._registry.get_sample_value(sample, labels or {}) or 0.0

    # EdgeObserver

    def accepted(self) -> None:
        self._accepted.inc()

    def refused(self, error: str, reason: str) -> None:
        self._refused.inc(error, reason)

    def opened(self) -> None:
        self._opened.inc()

    def closed(self, cause: str, seconds: float) -> None:
        self._closed.labels(cause).inc()
        self._session_seconds.observe(seconds)

    def received(self, messages: int, size: int) -> None:
        self._received.add(messages)
        self._received_bytes.add(size)

    def acknowledged(self) -> None:
        self._acks.inc()

    def accept_failed(self) -> None:
        self._accept_failures.inc()

    def commanded(self, outcome: str) -> None:
        self._commands.labels(outcome).inc()

    def slowed(self) -> None:
        self._slowed.inc()

    def answer_lost(self) -> None:
        self._answers_lost.inc()

    # AdmissionObserver

    def parked(self, rank: str) -> None:
        self._parked.labels(rank).inc()

    def ticket_issued(self, lead_s: float) -> None:
        self._tickets.inc("issued")
        self._lead.observe(lead_s)

    def ticket_honoured(self, lateness_s: float) -> None:
        self._tickets.inc("honoured")
        self._lateness.observe(lateness_s)

    def ticket_early(self, early_s: float) -> None:
        del early_s
        self._tickets.inc("early")

    def ticket_late(self, lateness_s: float) -> None:
        self._tickets.inc("late")
        self._lateness.observe(lateness_s)

    def ticket_invalid(self, reason: str) -> None:
        self._tickets_invalid.labels(reason).inc()

    def ticket_replayed(self) -> None:
        self._tickets.inc("replayed")

    def slot_given_back(self) -> None:
        self._given_back.inc()

    def past_horizon(self) -> None:
        self._past_horizon.inc()

    def over_meter(self) -> None:
        self._over_meter.inc()

    # StreamObserver

    def batch_settled(self, kind: str, messages: int, duplicates: int, seconds: float) -> None:
        self._kinds[kind].inc(messages)
        if duplicates:
            self._duplicates.inc(duplicates)
        self._batch_seconds.observe(seconds)
        self._batch_messages.observe(messages)

    def batch_retried(self, reason: str, messages: int) -> None:
        self._retried.labels(reason).inc(messages)

    def dead_lettered(self, error: str) -> None:
        self._dead.labels(error).inc()

    def off_schema(self, label: str) -> None:
        """An event does not fit its schema; `label` is of a fixed set."""
        self._off_schema.labels(label).inc()

    def looked_up(self) -> None:
        self._lookups.inc()

    def server_restarted(self) -> None:
        self._server_restarts.inc()

    def reconnected(self) -> None:
        self._reconnects.inc()
