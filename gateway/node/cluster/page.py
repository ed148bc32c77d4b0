"""What the operators' pages say about the fleet that this node is a member of."""

from typing import Any

from gateway.admission.clock import FleetClock
from gateway.admission.keyring import Keyring
from gateway.cluster.errors import REASONS
from gateway.cluster.link import RedisLink
from gateway.cluster.nodes import NodeRegistry
from gateway.cluster.shared_calendar import SharedCalendar
from gateway.telemetry.metrics import Metrics


def fleet_status(
    link: RedisLink,
    nodes: NodeRegistry,
    shared: SharedCalendar,
    clock: FleetClock,
    keyring: Keyring,
) -> dict[str, Any]:
    """The part of the status page."""
    trouble, agreement = link.trouble, keyring.agreement
    return {
        "fleet": {
            "redis_up": link.up,
            "redis_trouble": str(trouble) if trouble is not None else None,
            "nodes": nodes.nodes,
            "alone": shared.calendar.alone,
            "leases": shared.leases,
            "clock": {
                "wall_ahead_s": round(clock.wall_error_s, 3),
                "ahead_of_redis_s": round(nodes.redis_offset_s, 3),
                "disputed": clock.disputed,
            },
            "ticket_secrets": {
                "accepted": len(keyring.ids),
                "differ": agreement.odd,
                "nodes_that_do_not_accept": agreement.unheard,
            },
        }
    }


def register_fleet_gauges(
    metrics: Metrics,
    link: RedisLink,
    nodes: NodeRegistry,
    shared: SharedCalendar,
    clock: FleetClock,
    keyring: Keyring,
) -> None:
    """The part of the metrics page."""
    gauge = metrics.gauge

    def trouble() -> str:
        return link.trouble.reason if link.trouble is not None else "none"

    def differ() -> int:
        return int(keyring.agreement.odd or keyring.agreement.unheard > 0)

    gauge("tidegate_redis_up", "1 while Redis answers.", lambda: float(link.up))
    metrics.choice(
        "tidegate_redis_trouble",
        "1 for why Redis is of no use now.",
        "reason",
        ("none", *REASONS),
        trouble,
    )
    gauge("tidegate_fleet_nodes", "Nodes that live.", lambda: nodes.nodes)
    metrics.counted(
        "tidegate_calendar_leases_total",
        "Blocks of slots leased from the fleet's calendar.",
        lambda: shared.leases,
    )
    gauge(
        "tidegate_wall_clock_ahead_seconds",
        "How far the clock of this machine is ahead of the fleet's.",
        lambda: clock.wall_error_s,
    )
    gauge(
        "tidegate_ticket_secrets_differ",
        "1 if this node and another do not accept each other's tickets.",
        differ,
    )
