"""What the sessions of a node need of its other rooms: outlets, commands, records, turns."""

from collections.abc import Iterable
from typing import Final, Protocol

from gateway.beats import beat
from gateway.cluster.devices import DeviceKey
from gateway.cluster.fences import Fences
from gateway.edge.device.outlet import Outlet
from gateway.edge.fleet import Fleet, Member
from gateway.node.cluster.membership import Membership
from gateway.process import Work
from gateway.session.fairness import FairShare
from gateway.session.owner import MessageOwner
from gateway.stream.commands.chains import Chains, Mark
from gateway.stream.lanes.outlet import SessionOutlet
from gateway.stream.lanes.publisher import Publisher
from gateway.stream.lanes.tracing import Sampler
from tidegate.wire import frames

_TURN_S: Final = 0.5


class SessionOutlets:
    """Opens the way of each session into the stream."""

    def __init__(
        self, publisher: Publisher, sample: Sampler | None, mark: Mark | None, chains: Chains
    ) -> None:
        """
        Args:
            publisher: of the node.
            sample: begins the spans of the messages that are traced; None if none are.
            mark: marks those that do not fit their schema; None if nothing is marked.
            chains: devices which rules have just commanded.
        """
        self._publisher = publisher
        self._sample = sample
        self._mark = mark
        self._chains = chains

    def open(self, tenant: str, device: str, outbox: str, owner: MessageOwner) -> Outlet:
        return SessionOutlet(
            self._publisher,
            self._sample,
            self._mark,
            self._chains,
            tenant=tenant,
            device=device,
            outbox=outbox,
            owner=owner,
        )


class SessionCommands:
    """Hands commands to the sessions of a node."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def deliver(self, tenant: str, device: str, command: frames.Command) -> bool | None:
        """Send a command; None if this node does not hold the device, False if it is busy."""
        handler = self._fleet.find(tenant, device)
        return None if handler is None else handler.command(command)


class SessionFollower(Protocol):
    """A part that is told of the sessions of a node."""

    def established(self, member: Member) -> None:
        """This session speaks for its device from now on."""

    def ended(self, key: DeviceKey, fence: int, cause: str) -> None:
        """The connection of an established session is gone; `cause` is that of a presence fact."""


class SessionRecords:
    """Numbers sessions in the order of a fleet, and tells the fleet of them."""

    def __init__(self, fences: Fences, membership: Membership) -> None:
        self._fences = fences
        self._membership = membership

    def next_fence(self) -> int:
        return self._fences.next()

    def established(self, member: Member) -> None:
        self._membership.arrived(member.key, member.fence, member.identity.holder)

    def ended(self, key: DeviceKey, fence: int, cause: str) -> None:
        del cause
        self._membership.departed(key, fence)


class SessionNews:
    """Numbers sessions, and tells every part that follows them."""

    def __init__(self, records: SessionRecords, *followers: SessionFollower) -> None:
        """
        Args:
            records: of the fleet.
            followers: told after the fleet, in this order.
        """
        self._records = records
        self._followers: tuple[SessionFollower, ...] = (records, *followers)

    def next_fence(self) -> int:
        return self._records.next_fence()

    def established(self, member: Member) -> None:
        for follower in self._followers:
            follower.established(member)

    def ended(self, key: DeviceKey, fence: int, cause: str) -> None:
        for follower in self._followers:
            follower.ended(key, fence, cause)


class FairTurns:
    """Ends the turns by which fair shares are counted."""

    def __init__(self, fairness: FairShare) -> None:
        self._fairness = fairness

    def work(self) -> Iterable[Work]:
        yield "fairness", self._run()

    async def _run(self) -> None:
        while True:
            await beat(_TURN_S)
            self._fairness.end_turn()
