"""The hooks of edge, admission and stream, counted.

Labels come from fixed sets in our own code, never from devices: an id in a label would let a fleet
(or one hostile device) grow the exposition without bound. The most frequent hooks use `Tally`.
"""

from dataclasses import dataclass
from typing import Any, Final

from gateway.admission.observer import AdmissionObserver
from gateway.node.ops.talk_metrics import TalkMetrics
from gateway.stream.lanes.batch import Kind
from gateway.stream.observer import StreamObserver
from gateway.stream.queue.line import QueueObserver
from gateway.stream.queue.status import Status
from gateway.telemetry.metrics import Metrics

_ACK_BUCKETS: Final = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
)  # fmt: skip
_BATCH_BUCKETS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_LAG_BUCKETS: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 600)
_LEAD_BUCKETS: Final = (1, 2, 5, 10, 20, 60, 120, 300, 600, 900)
_SESSION_BUCKETS: Final = (1, 10, 60, 600, 3600, 6 * 3600, 24 * 3600)


class EdgeMetrics(TalkMetrics):
    """Counts what the edge does."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__(metrics)
        self._accepted = metrics.tally("tidegate_accepted", "TCP connections accepted.")
        self._accept_failures = metrics.counter(
            "tidegate_accept_failures",
            "Times accepting paused because the system had no resources.",
        )
        self._refused = metrics.tally(
            "tidegate_refused", "Handshakes refused, by error and reason.", "error", "reason"
        )
        self._opened = metrics.tally("tidegate_sessions_opened", "WebSocket sessions opened.")
        self._closed = metrics.tally(
            "tidegate_sessions_closed", "Sessions ended, by cause.", "cause"
        )
        self._session_seconds = metrics.histogram(
            "tidegate_session_seconds", "How long sessions lasted.", _SESSION_BUCKETS
        )
        # Counted in place: every message and every ack of every device pass here.
        self._received = metrics.tally(
            "tidegate_messages_received", "Messages received from devices."
        ).counts
        self._received_bytes = metrics.tally(
            "tidegate_received_bytes", "Bytes of message frames received from devices."
        ).counts
        self._acks = metrics.tally("tidegate_ack_frames", "Ack frames sent to devices.").counts
        self._slowed = metrics.counter(
            "tidegate_reads_slowed",
            "Times a connection was read more slowly for what it sent beside messages.",
        )
        self._answers_lost = metrics.counter(
            "tidegate_answers_lost", "Refusals nobody waited for: the device had hung up."
        )

    def accepted(self) -> None:
        self._accepted.inc()

    def refused(self, error: str, reason: str) -> None:
        self._refused.inc(error, reason)

    def opened(self) -> None:
        self._opened.inc()

    def closed(self, cause: str, seconds: float) -> None:
        self._closed.inc(cause)
        self._session_seconds.observe(seconds)

    def received(self, messages: int, size: int) -> None:
        self._received[()] += messages
        self._received_bytes[()] += size

    def acknowledged(self) -> None:
        self._acks[()] += 1

    def accept_failed(self) -> None:
        self._accept_failures.inc()

    def slowed(self) -> None:
        self._slowed.inc()

    def answer_lost(self) -> None:
        self._answers_lost.inc()

    def totals(self) -> dict[str, Any]:
        """For the live page: `admitted`, `messages`, and `refused` by error and reason."""
        refused = self._refused.counts.items()
        return {
            "admitted": sum(self._opened.counts.values()),
            "messages": self._received[()],
            "refused": {"/".join(filter(None, labels)): count for labels, count in refused},
        }


class AdmissionMetrics(AdmissionObserver):
    """Counts what the admission does."""

    def __init__(self, metrics: Metrics) -> None:
        self._parked = metrics.counter(
            "tidegate_knocks_parked", "Knocks parked in the handshake.", "rank"
        )
        self._tickets = metrics.tally(
            "tidegate_tickets", "Tickets, by what became of them.", "outcome"
        )
        self._tickets_invalid = metrics.counter(
            "tidegate_tickets_invalid", "Tickets worth nothing, by reason.", "reason"
        )
        self._lateness = metrics.histogram(
            "tidegate_ticket_lateness_seconds", "After its slot, a ticket shown.", _ACK_BUCKETS
        )
        self._lead = metrics.histogram(
            "tidegate_ticket_lead_seconds", "How far ahead slots were promised.", _LEAD_BUCKETS
        )
        self._given_back = metrics.counter(
            "tidegate_slots_given_back", "Admissions into slots that nobody had claimed."
        )
        self._past_horizon = metrics.tally(
            "tidegate_past_horizon", "Knocks that found the calendar full."
        )
        self._over_meter = metrics.counter(
            "tidegate_admitted_over_meter", "Promises kept although R had no credit for them."
        )

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


class StreamMetrics(StreamObserver):
    """Counts what the stream does."""

    def __init__(self, metrics: Metrics) -> None:
        stored = metrics.counter(
            "tidegate_messages_settled",
            "Messages stored, by kind of batch (lookup: found in the stream).",
            "kind",
        )
        self._duplicates = metrics.counter(
            "tidegate_messages_duplicate",
            "Messages the stream had already, where the server says so (fast ingest does not).",
        )
        self._batch_seconds = metrics.histogram(
            "tidegate_publish_seconds", "From sending a batch to its PubAck.", _ACK_BUCKETS
        )
        self._batch_messages = metrics.histogram(
            "tidegate_batch_messages", "Messages a batch.", _BATCH_BUCKETS
        )
        self._retried = metrics.counter(
            "tidegate_publish_retried", "Messages published again, by reason.", "reason"
        )
        self._dead = metrics.tally(
            "tidegate_dead_letters", "Messages stored in the dead letters, by error.", "error"
        )
        self._off_schema = metrics.counter(
            "tidegate_schema_violations",
            "Events that do not fit the schema of their type; other: of a type without one.",
            "type",
        )
        self._lookups = metrics.counter(
            "tidegate_resume_lookups", "Devices whose place was looked up in the stream."
        )
        self._states_asked = metrics.counter(
            "tidegate_state_lookups",
            "Devices whose state was looked up: by direct get, or of the stream's leader.",
            "whom",
        )
        self._state_rounds_failed = metrics.counter(
            "tidegate_state_rounds_failed",
            "Rounds of such look-ups that had no answer and were repeated.",
        )
        self._server_restarts = metrics.counter(
            "tidegate_nats_server_restarts", "Times the embedded nats-server died and came back."
        )
        self._reconnects = metrics.counter("tidegate_nats_reconnects", "Connections to NATS made.")
        kinds = [*(kind.value for kind in Kind), "lookup"]
        self._kinds = {kind: stored.labels(kind) for kind in kinds}

    def batch_settled(self, kind: str, messages: int, duplicates: int, seconds: float) -> None:
        self._kinds[kind].inc(messages)
        if duplicates:
            self._duplicates.inc(duplicates)
        self._batch_seconds.observe(seconds)
        self._batch_messages.observe(messages)

    def batch_retried(self, reason: str, messages: int) -> None:
        self._retried.labels(reason).inc(messages)

    def dead_lettered(self, error: str) -> None:
        self._dead.inc(error)

    def dead_letters(self) -> dict[str, int]:
        """For the live page: how many there were, by error."""
        return {error: count for (error,), count in self._dead.counts.items()}

    def off_schema(self, label: str) -> None:
        """An event does not fit its schema; `label` is of a fixed set."""
        self._off_schema.labels(label).inc()

    def looked_up(self) -> None:
        self._lookups.inc()

    def states_asked(self, whom: str, devices: int) -> None:
        self._states_asked.labels(whom).inc(devices)

    def state_round_failed(self) -> None:
        self._state_rounds_failed.inc()

    def server_restarted(self) -> None:
        self._server_restarts.inc()

    def reconnected(self) -> None:
        self._reconnects.inc()


class PresenceMetrics:
    """Counts the presence facts of a node."""

    def __init__(self, metrics: Metrics) -> None:
        self._facts = metrics.tally("tidegate_presence_facts", "Presence facts stored.")
        self._lag = metrics.histogram(
            "tidegate_presence_lag_seconds",
            "From a device's coming or going until that is stored: the oldest fact of each batch.",
            _LAG_BUCKETS,
        )
        self._ended = metrics.tally(
            "tidegate_presence_node_lost", "Sessions of nodes that are gone, ended by this node."
        )

    def stored(self, facts: int, lag_s: float) -> None:
        """A batch of facts is stored; `lag_s` is the age of the oldest."""
        self._facts.add(facts)
        self._lag.observe(lag_s)

    def node_lost(self, sessions: int) -> None:
        """The ends of sessions of a node that is gone are stored."""
        self._ended.add(sessions)


class QueueMetrics(QueueObserver):
    """Counts what the queue of commands does."""

    def __init__(self, metrics: Metrics) -> None:
        self._stored = metrics.counter(
            "tidegate_command_facts", "Facts of queued commands stored, by status.", "status"
        )
        self._repeated = metrics.counter(
            "tidegate_command_steps_repeated",
            "Steps of queued commands taken again: no answer, or another writer was first.",
        )
        self._ignored = metrics.counter(
            "tidegate_command_answers_ignored",
            "Answers of devices, or entries of the queue, that meant nothing, by kind.",
            "kind",
        )

    def stored(self, status: Status) -> None:
        self._stored.labels(status.value).inc()

    def repeated(self) -> None:
        self._repeated.inc()

    def ignored(self, what: str) -> None:
        self._ignored.labels(what).inc()


class OpsMetrics:
    """Counts what the operators' port refuses."""

    def __init__(self, metrics: Metrics) -> None:
        self._denied = metrics.counter(
            "tidegate_operators_denied", "Requests to the ops port that were refused.", "error"
        )

    def denied(self, error: str) -> None:
        """`error` is of a fixed set (`gateway/ops/access.py`)."""
        self._denied.labels(error).inc()


@dataclass(frozen=True, slots=True)
class Observers:
    """What counts in each room of a node."""

    edge: EdgeMetrics
    admission: AdmissionMetrics
    stream: StreamMetrics
    ops: OpsMetrics
    queue: QueueMetrics

    @classmethod
    def of(cls, metrics: Metrics) -> "Observers":
        return cls(
            EdgeMetrics(metrics),
            AdmissionMetrics(metrics),
            StreamMetrics(metrics),
            OpsMetrics(metrics),
            QueueMetrics(metrics),
        )
