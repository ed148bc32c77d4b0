"""Devices on their way in: those that wait in the handshake, and those without a welcome yet.

For the look-up of a device. The gate keeps its own list of visitors here, and a session is noted
from its opening to its welcome, so nothing else is counted in a storm.
"""

from gateway.admission.credential import Identity
from gateway.edge.fleet import Member
from gateway.edge.ports import Visitor


class Waiting:
    """A visitor that the desk has not answered yet. It is answered, or it says `hung_up`."""

    __slots__ = ("identity", "visitor")

    def __init__(self, visitor: Visitor, identity: Identity) -> None:
        self.visitor = visitor
        self.identity = identity


class Arrivals:
    """The devices of one node that are on their way in."""

    def __init__(self) -> None:
        self.waiting: dict[Visitor, Waiting] = {}
        """Visitors that the desk has not answered yet."""
        self._greeting: dict[tuple[str, str], Member] = {}

    def opened(self, member: Member) -> None:
        """A session has begun, and has had no welcome."""
        self._greeting[member.key] = member

    def over(self, member: Member) -> None:
        """A session has had its welcome, or has ended. May be called again."""
        if self._greeting.get(member.key) is member:
            del self._greeting[member.key]

    def greeting(self, tenant: str, device: str) -> Member | None:
        """The newest session of a device that has had no welcome."""
        return self._greeting.get((tenant, device))

    def parked(self, tenant: str, device: str) -> bool:
        """Whether the device waits in the handshake. Looks through those that wait."""
        wanted = (tenant, device)
        return any(each.identity.key == wanted for each in self.waiting.values())
