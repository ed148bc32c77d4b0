"""One second of a gateway, for the live page."""

from collections.abc import Callable
from typing import Any

from gateway.admission.controller import RateController
from gateway.node.ops.observers import EdgeMetrics, StreamMetrics
from gateway.node.ops.status import NodeStatus
from gateway.stream.lanes.publisher import Publisher


class NodeSnapshot:
    """Takes snapshots of this node. Counts are totals; the page makes rates of them."""

    def __init__(
        self,
        status: NodeStatus,
        controller: RateController,
        *,
        edge: EdgeMetrics,
        stream: StreamMetrics,
        publisher: Publisher,
        credit: Callable[[], int],
        wall: Callable[[], float],
    ) -> None:
        """
        Args:
            status: the status page.
            controller: has the signals of the last second.
            edge: counts of the edge.
            stream: counts of the stream.
            publisher: has the lanes.
            credit: messages that one device may have outstanding now.
            wall: Unix time in seconds.
        """
        self._status = status
        self._controller = controller
        self._edge = edge
        self._stream = stream
        self._publisher = publisher
        self._credit = credit
        self._wall = wall

    def take(self) -> dict[str, Any]:
        """What the page shows now (`status`, counts by reason), and its charts (`series`)."""
        lanes, dead = self._publisher.lane_loads, self._stream.dead_letters()
        page, edge = self._status.page(), self._edge.totals()
        admission, signals = page["admission"], self._controller.signals
        at = round(self._wall(), 3)
        return {
            "at": at,
            "series": {
                "at": at,
                "devices": page["devices"],
                "admitted": edge["admitted"],
                "refused": sum(edge["refused"].values()),
                "messages": edge["messages"],
                "pending": page["pending"]["messages"],
                "waiting": sum(waiting for waiting, _, _ in lanes),
                "fullest": max(waiting for waiting, _, _ in lanes),
                "in_flight": sum(flying for _, flying, _ in lanes),
                "credit": self._credit(),
                "dead": sum(dead.values()),
                "rate": admission["rate_per_s"],
                "lead": admission["lead_s"],
                "ack_p99_ms": round(signals.get("puback_p99", 0.0) * 1000, 2),
                "loop_lag_ms": round(signals.get("loop_lag", 0.0) * 1000, 2),
            },
            "status": page,
            "refused": list(edge["refused"].items()),
            "dead": list(dead.items()),
            "lanes": [(waiting, flying, round(s * 1000)) for waiting, flying, s in lanes],
        }
