"""What is told to devices, counted: commands and states."""

from gateway.edge.observer import EdgeObserver
from gateway.telemetry.metrics import Metrics


class TalkMetrics(EdgeObserver):
    """Counts what operators and devices tell each other beside messages."""

    def __init__(self, metrics: Metrics) -> None:
        self._commands = metrics.counter(
            "tidegate_commands", "Commands for devices, by outcome.", "outcome"
        )
        self._states = metrics.tally(
            "tidegate_states_sent", "States told to devices, by the way they went.", "way"
        )

    def commanded(self, outcome: str) -> None:
        self._commands.labels(outcome).inc()

    def state_sent(self, way: str) -> None:
        self._states.inc(way)
