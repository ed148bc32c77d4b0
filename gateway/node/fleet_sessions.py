"""The sessions of a node as its fleet sees them: one connection a device, numbered by fences."""

from gateway.cluster.devices import DeviceKey
from gateway.cluster.fences import Fences
from gateway.edge.fleet import Fleet


class FleetSessions:
    """Answers and obeys the device registry of the fleet."""

    def __init__(self, fleet: Fleet, fences: Fences) -> None:
        """
        Args:
            fleet: the sessions of this node.
            fences: number its sessions.
        """
        self._fleet = fleet
        self._fences = fences

    def present(self) -> list[tuple[DeviceKey, int]]:
        """The devices that this node holds, each with the fence of its session."""
        return [(session.key, session.fence) for session in self._fleet if session.fence]

    def newer_elsewhere(self, key: DeviceKey, fence: int) -> None:
        """The device has a newer connection on another node: end the one that is here."""
        session = self._fleet.find(*key)
        if session is not None and session.fence < fence:
            session.supersede()

    def time_stepped(self, step_s: float) -> None:
        """Fleet time made a step: fences are fleet time, so those of live sessions move with it."""
        for session in self._fleet:
            if session.fence:
                session.fence = self._fences.moved(session.fence, step_s)
        self._fences.step(step_s)
