"""Exports spans from a thread of its own, through a bounded queue.

The loop only appends to the queue. What does not fit is dropped and counted, so a collector that is
away or slow costs the process nothing but spans. A request that may succeed later is repeated, with
jitter, until it is too old.
"""

import asyncio
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import structlog
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector as MetricsCollector

from gateway.jitter import full_jitter_s
from gateway.telemetry.spans import Recorded

_log = structlog.get_logger(__name__)

REQUEST_SPANS_MAX: Final = 512
"""Spans of one request."""
_SLICE_SPANS: Final = 64
"""Spans that are encoded before the thread lets others run."""
_INTERVAL_S: Final = 1.0
"""How long a span waits for others, at most."""
_RETRY_S: Final = 0.5
_RETRY_MAX_S: Final = 5.0
_GIVE_UP_S: Final = 30.0
"""A request that failed for so long is dropped; the queue holds newer spans."""
FLUSH_S: Final = 2.0
"""How long the end of a process waits for the last spans."""


class Fillable(Protocol):
    """A request that is being filled."""

    def add(self, spans: "list[Recorded]") -> None:
        """Add spans."""

    def encoded(self) -> bytes:
        """Its bytes."""


class Receiver(Protocol):
    """Where requests are sent. Blocks for a bounded time."""

    def send(self, body: bytes) -> tuple[bool, str]:
        """Whether a repeat may succeed, and why it failed; empty if it did not."""

    def close(self) -> None:
        """Give up the connection."""


class SpanExport(MetricsCollector):
    """The queue, the thread and the figures of exporting."""

    def __init__(
        self,
        receiver: Receiver,
        new_request: Callable[[], Fillable],
        *,
        queue_max: int,
        rng: random.Random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            receiver: of the requests.
            new_request: makes an empty one.
            queue_max: spans that wait, at most.
            rng: source of jitter.
            clock: monotonic seconds.
        """
        self._receiver = receiver
        self._new_request = new_request
        self._queue_max = queue_max
        self._rng = rng
        self._clock = clock
        self._queue: deque[Recorded] = deque()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._exported = 0
        # Each is counted by one thread only, so no count is lost.
        self._dropped = {"queue": 0, "failed": 0}
        self._thread: threading.Thread | None = None

    # On the loop

    def record(self, span: Recorded) -> None:
        """Take a span that has ended; drop it if the queue is full."""
        waiting = len(self._queue)
        if waiting >= self._queue_max:
            self._dropped["queue"] += 1
            return
        self._queue.append(span)
        if waiting + 1 == REQUEST_SPANS_MAX:
            self._wake.set()

    def start(self) -> None:
        """Begin to export."""
        # A daemon: a collector that does not answer must not keep the process from its end.
        self._thread = threading.Thread(target=self._run, name="span-export", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Export what waits, for `FLUSH_S` at most; what is left then is dropped."""
        thread = self._thread
        if thread is None:
            return
        self._stopping.set()
        self._wake.set()
        await asyncio.to_thread(thread.join, FLUSH_S)
        if thread.is_alive() or self._queue:
            _log.warning("spans_not_exported", spans=len(self._queue))

    @property
    def exported(self) -> int:
        """Spans that the collector has taken."""
        return self._exported

    @property
    def dropped(self) -> int:
        """Spans that were given up."""
        return sum(self._dropped.values())

    def collect(self) -> Iterable[Metric]:
        yield CounterMetricFamily(
            "tidegate_trace_spans_exported", "Spans that the collector took.", self._exported
        )
        dropped = CounterMetricFamily(
            "tidegate_trace_spans_dropped",
            "Spans given up: the queue was full, or the collector failed.",
            labels=["reason"],
        )
        for reason, spans in self._dropped.items():
            dropped.add_metric([reason], spans)
        yield dropped

    # On the thread

    def _run(self) -> None:
        try:
            self._export_all()
        except Exception:  # noqa: BLE001  # a fault of ours: it is logged, and spans are dropped
            _log.exception("span_export_failed")

    def _export_all(self) -> None:
        while not (self._stopping.is_set() and not self._queue):
            self._wake.wait(_INTERVAL_S)
            self._wake.clear()
            while self._queue:
                self._export()
        self._receiver.close()

    def _export(self) -> None:
        """Send one request, again and again if that may help."""
        request, spans = self._new_request(), 0
        while self._queue and spans < REQUEST_SPANS_MAX:
            portion = [self._queue.popleft() for _ in range(min(_SLICE_SPANS, len(self._queue)))]
            request.add(portion)
            spans += len(portion)
            time.sleep(0)  # lets the loop's thread have the interpreter
        body, failures = request.encoded(), 0
        give_up_at = self._clock() + _GIVE_UP_S
        while True:
            repeatable, trouble = self._receiver.send(body)
            if not trouble:
                self._exported += spans
                return
            failures += 1
            late = self._stopping.is_set() or self._clock() > give_up_at
            if late or not repeatable:
                self._dropped["failed"] += spans
                _log.warning("spans_dropped", spans=spans, reason=trouble)
                return
            self._stopping.wait(
                full_jitter_s(self._rng, failures, first_s=_RETRY_S, max_s=_RETRY_MAX_S)
            )
