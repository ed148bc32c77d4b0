"""What operators do with the session of a device: end it."""

from typing import Final

from gateway.edge.fleet import Fleet

REASON: Final = "disconnect"
"""Of the `goaway`, and of the close in the metrics."""
_RETRY_MS: Final = 1_000


class OperatorSessions:
    """`gateway.ops.gateway_orders.Sessions`, over the sessions of this node."""

    def __init__(self, fleet: Fleet) -> None:
        """
        Args:
            fleet: the sessions of this node.
        """
        self._fleet = fleet

    async def disconnect(self, tenant: str, device: str) -> bool:
        """End the session of a device. What it sent is settled and acknowledged first.

        Returns:
            False if the device has no session.
        """
        session = self._fleet.find(tenant, device)
        if session is None:
            return False
        session.leave(REASON, _RETRY_MS, "", linger_s=-1)
        return True
