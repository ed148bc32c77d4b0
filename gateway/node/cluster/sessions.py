"""The sessions of a node as its fleet sees them: one connection a device, numbered by fences."""

from gateway.cluster.devices import DeviceKey
from gateway.cluster.fences import Fences
from gateway.edge.fleet import Fleet, Member
from gateway.node.hook import Hook


class FleetSessions:
    """Answers and obeys the device registry of the fleet.

    The fence of a session may change while it lasts. On its own node the session is named by the
    fence of its welcome.
    """

    def __init__(self, fleet: Fleet, fences: Fences) -> None:
        """
        Args:
            fleet: the sessions of this node.
            fences: number its sessions.
        """
        self._fleet = fleet
        self._fences = fences
        self._moved: dict[tuple[DeviceKey, int], int] = {}
        """The fence of now, by device and the fence of the welcome; only where they differ."""
        self.on_raised: Hook[[DeviceKey]] = Hook()
        """Called when the fleet has raised the fence of the session of a device."""

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
                self._move(session, self._fences.moved(session.fence, step_s))
        self._fences.step(step_s)

    def raised(self, key: DeviceKey, given: int, fence: int) -> None:
        """A session of this node is newer than one with a higher fence: it has this one now."""
        session = self._fleet.find(*key)
        if session is not None and session.fence == given:
            self._move(session, fence)
            self._fences.at_least(fence)
            self.on_raised(key)

    def _move(self, session: Member, fence: int) -> None:
        if session.seat is not None:  # else it has ended
            self._moved[session.key, session.seat.fence] = fence
        session.fence = fence

    def ended(self, key: DeviceKey, fence: int) -> int:
        """A session has ended.

        Args:
            key: of its device.
            fence: of its welcome.

        Returns:
            The fence by which the fleet knows it.
        """
        return self._moved.pop((key, fence), fence) if self._moved else fence
