"""The parts of a process that runs sinks or rules: its sinks, its end, and what its pages say."""

import asyncio
import math
import random
from collections.abc import Iterable, Sequence
from importlib.metadata import version as package_version
from typing import Any

from gateway.consumers.errors import TargetRefused
from gateway.consumers.sink import SinkRunner, State
from gateway.consumers.target import SinkObserver
from gateway.consumers.tracing import EventTraces, traced_in
from gateway.events.event import Event
from gateway.events.letters import Stage
from gateway.process import Ending, Part, Work, nothing
from gateway.settings import Settings
from gateway.stream.link.link import NatsLink
from gateway.telemetry.export import FLUSH_S
from gateway.telemetry.sampling import Ids
from gateway.telemetry.sinks import SinkMetrics
from gateway.telemetry.spans import ConsumedTraces
from gateway.tracing import open_export


class Survivors:
    """Ends the process when no sink is left. A sink that fails for good does not end the others."""

    def __init__(self, ending: Ending) -> None:
        self._ending = ending
        self._left = 0

    def began(self, sinks: int) -> None:
        """So many sinks run now."""
        self._left = sinks

    def sink_failed(self, failure: BaseException) -> None:
        """A sink has ended for good."""
        self._left -= 1
        self.failed(failure)

    def failed(self, failure: BaseException) -> None:
        """Something else has failed for good."""
        self._ending.note(failure)
        if self._left <= 0:
            self._ending.ask()


class Observing:
    """Counts what sinks do, and records the spans of sampled events. Satisfies `SinkObserver`."""

    def __init__(self, metrics: SinkMetrics, traces: EventTraces, kind: Stage) -> None:
        self._metrics = metrics
        self._traces = traces
        self._kind = kind
        self.expired = metrics.expired

    def repeated(self, sink: str, events: Sequence[Event], error: str, took_s: float) -> None:
        self._metrics.repeated(sink, events, error, took_s)
        consumer = f"{self._kind}/{sink}"
        traced = traced_in(events, consumer)
        if traced:
            self._traces.failed(consumer, traced, len(events), error, took_s)

    def written(self, sink: str, events: Sequence[Event], buried: int, took_s: float) -> None:
        self._metrics.written(sink, events, buried, took_s)
        consumer = f"{self._kind}/{sink}"
        traced = traced_in(events, consumer)
        if traced:
            self._traces.processed(consumer, traced, len(events), buried, took_s)


def traces_of(
    settings: Settings, metrics: SinkMetrics, kind: Stage, owner: str, rng: random.Random
) -> tuple[SinkObserver, Part]:
    """What observes the sinks or rules of a process, and the part that exports their spans.

    Raises:
        TelemetryError: the spans cannot be exported.
    """
    process = "route" if kind == "rule" else kind
    export = open_export(settings.trace, process=process, instance=owner, rng=rng)
    if export is None:
        return metrics, Part("traces", nothing, nothing)
    metrics.collect_from(export)
    observer = Observing(metrics, ConsumedTraces(Ids(rng), export.record), kind)
    return observer, Part("traces", export.start, export.stop, 2 * FLUSH_S)


class Sinks:
    """The sinks of this process."""

    def __init__(self, runners: Sequence[SinkRunner], survivors: Survivors, kind: Stage) -> None:
        self.runners = tuple(runners)
        self._kind = kind
        self._survivors = survivors

    async def check(self) -> None:
        """Open each target once.

        Raises:
            TargetRefused: a target says no; with a line for each.
        """
        results = await asyncio.gather(
            *(runner.check() for runner in self.runners), return_exceptions=True
        )
        refusals = [each for each in results if isinstance(each, BaseException)]
        for each in refusals:
            if not isinstance(each, TargetRefused):
                raise each
        if refusals:
            raise TargetRefused("\n".join(map(str, refusals)))

    def work(self) -> Iterable[Work]:
        """All sinks, side by side."""
        self._survivors.began(len(self.runners))
        for runner in self.runners:
            yield f"{self._kind}-{runner.name}", runner.run()


class SinkStatus:
    """What the pages say of the process."""

    def __init__(
        self,
        kind: Stage,
        owner: str,
        runners: Sequence[SinkRunner],
        link: NatsLink,
        ending: Ending,
    ) -> None:
        self._kind = kind
        self._owner = owner
        self._runners = runners
        self._link = link
        self._ending = ending

    def connected(self) -> bool:
        """Whether NATS answers."""
        return self._link.client is not None

    def not_ready(self) -> str | None:
        """Why this process does not do what it should, or None. Standing by is what it should."""
        if not self.connected():
            return "nats"
        if self._ending.failures:
            return f"{self._kind}_failed"
        for runner in self._runners:
            if runner.state in (State.OPENING, State.REFUSED):
                return f"{self._kind}_{runner.state.value}"
        return None

    def page(self) -> dict[str, Any]:
        """The state of the process in a page."""
        return {
            "version": package_version("tidegate-gateway"),
            "owner": self._owner,
            "not_ready": self.not_ready(),
            "nats": {
                "connected": self.connected(),
                "last_error": self._link.last_error or None,
            },
            "failed": [str(failure) for failure in self._ending.failures],
            f"{self._kind}s": {
                runner.name: {
                    "state": runner.state.value,
                    "trouble": runner.trouble or None,
                    "position": runner.position,
                    "lag_messages": _known(runner.lag_messages),
                    "lag_s": _known(round(runner.lag_s, 3)),
                    "retention_used": _known(round(runner.retention_used, 4)),
                }
                for runner in self._runners
            },
        }


def _known(figure: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(figure) else figure
