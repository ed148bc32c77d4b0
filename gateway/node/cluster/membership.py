"""What a node is to other nodes: the port that a fleet fills, and its null form.

`LoneNode` is a node without Redis. `FleetNode` (`node.py`) is a member of a fleet over Redis.
Both offer a calendar, and hear what the rest of the node tells about itself.
"""

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from gateway.admission.calendar import Calendar, CalendarSettings, SlotCalendar
from gateway.admission.revocation import Revocation
from gateway.cluster.claims import MINE
from gateway.cluster.devices import DeviceKey
from gateway.cluster.overrides import Override
from gateway.node.cluster.roll import Alive
from gateway.process import Work
from gateway.telemetry.metrics import Metrics


class Reach(enum.StrEnum):
    """How far an order went."""

    FLEET = "fleet"
    """Redis keeps it, and every node that is connected was told."""
    PENDING = "pending"
    """This node enforces and keeps it; the others hear of it once Redis answers."""
    NODE = "node"
    """This node enforces and keeps it, and there are no others."""
    MEMORY = "memory"
    """This node enforces it until it stops: neither its disk nor the fleet took it."""


class Membership(Protocol):
    """What a node is to other nodes."""

    @property
    def calendar(self) -> Calendar:
        """Where slots come from. Local times."""

    @property
    def peers(self) -> int:
        """Other nodes that could take this one's devices."""

    @property
    def alive(self) -> Alive | None:
        """The nodes that are alive; None if that is not known, or there is no fleet."""

    @property
    def pending(self) -> int:
        """Revocations of this node that the fleet has not taken yet."""

    async def open(self) -> None:
        """Meet the fleet, before the first knock."""

    def work(self) -> Iterable[Work]:
        """What must run as long as the node does."""

    def propose(self, rate_per_s: float) -> None:
        """Say how many devices a second this node could admit."""

    def arrived(self, key: DeviceKey, fence: int, holder: bytes) -> None:
        """A session was established; `holder` is the hash of its device."""

    def departed(self, key: DeviceKey, fence: int) -> None:
        """A session ended."""

    async def share(self, facts: Sequence[Revocation]) -> Reach:
        """Give revocations to the other nodes.

        Returns:
            `FLEET`, `PENDING` or, without other nodes, `NODE`.
        """

    async def steer(self, facts: Sequence[Override]) -> Reach:
        """Give overrides of settings to the other nodes.

        Returns:
            As `share`.
        """

    async def claim(self, work: Mapping[str, float], *, lease_s: float) -> dict[str, str]:
        """Claim work that one node must do: `Claims.take` says how.

        Raises:
            RedisUnavailable: Redis is down, or went down.
        """

    async def claim_done(self, names: Sequence[str]) -> None:
        """This node has done work that it had claimed.

        Raises:
            RedisUnavailable: another node may do the work again.
        """

    async def ask(self, question: dict[str, Any]) -> list[dict[str, Any]]:
        """Ask all other nodes about a device; the answers that come in time."""

    def set_burst(self, burst: float) -> None:
        """Change how many devices the calendar admits at once."""

    def status(self) -> dict[str, Any]:
        """For the status page."""

    def register_gauges(self, metrics: Metrics) -> None:
        """For the metrics page."""

    async def close(self) -> None:
        """The node stops."""


class LoneNode:
    """A node without a fleet: the null form of `Membership`."""

    peers = 0
    pending = 0
    alive = None

    def __init__(self, settings: CalendarSettings, *, rate_per_s: float, now: float) -> None:
        """
        Args:
            settings: of the calendar.
            rate_per_s: R at the start.
            now: local time, seconds.
        """
        self.calendar = SlotCalendar(settings, rate_per_s=rate_per_s, now=now)

    async def open(self) -> None:
        pass

    def work(self) -> Iterable[Work]:
        return ()

    def propose(self, rate_per_s: float) -> None:
        self.calendar.set_rate(rate_per_s)

    def arrived(self, key: DeviceKey, fence: int, holder: bytes) -> None:
        pass

    def departed(self, key: DeviceKey, fence: int) -> None:
        pass

    async def share(self, facts: Sequence[Revocation]) -> Reach:
        del facts
        return Reach.NODE

    async def steer(self, facts: Sequence[Override]) -> Reach:
        del facts
        return Reach.NODE

    async def claim(self, work: Mapping[str, float], *, lease_s: float) -> dict[str, str]:
        del lease_s
        return dict.fromkeys(work, MINE)

    async def claim_done(self, names: Sequence[str]) -> None:
        pass

    async def ask(self, question: dict[str, Any]) -> list[dict[str, Any]]:
        del question
        return []

    def set_burst(self, burst: float) -> None:
        self.calendar.set_burst(burst)

    def status(self) -> dict[str, Any]:
        return {}

    def register_gauges(self, metrics: Metrics) -> None:
        pass

    async def close(self) -> None:
        pass
