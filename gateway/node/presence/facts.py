"""The presence of the devices of this node: a fact for each session that begins or ends."""

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from gateway.cluster.devices import DeviceKey
from gateway.edge.fleet import Member
from gateway.session.presence import CONNECTED, TAKEN_OVER, Fact


class Facts(Protocol):
    """Where facts go."""

    def add(self, fact: Fact, *, prompt: bool = False) -> None:
        """Store a fact soon; `prompt` facts before those that linger."""


class _Announced(Struct):
    """A session that was announced. Its fence may differ from that of the fleet's registry: fleet
    time may have stepped since, or the node may have announced the session again.
    """

    member: Member
    welcomed: int
    """The fence of its welcome, which names it on this node."""
    fence: int


class SessionPresence:
    """Follows the sessions of a node (`SessionFollower`)."""

    def __init__(self, facts: Facts, *, node: str, clock: Callable[[], float]) -> None:
        """
        Args:
            facts: where facts go.
            node: name of this process.
            clock: fleet time, seconds.
        """
        self._facts = facts
        self._node = node
        self._clock = clock
        self._announced: dict[DeviceKey, _Announced] = {}

    def __len__(self) -> int:
        return len(self._announced)

    def established(self, member: Member) -> None:
        """This session speaks for its device from now on."""
        key, fence = member.key, member.fence
        older = self._announced.get(key)
        if older is not None:
            # First: the end of a session must not be the last fact of a device that is online.
            fact = self._fact(older)
            self._facts.add(fact.ended(TAKEN_OVER, self._clock(), self._node))
        announced = self._announced[key] = _Announced(member, fence, fence)
        self._facts.add(self._fact(announced))

    def ended(self, key: DeviceKey, fence: int, cause: str) -> None:
        """The connection of an established session is gone."""
        announced = self._announced.get(key)
        if announced is None or announced.welcomed != fence:
            return  # a newer session of this node has announced that this one ended
        del self._announced[key]
        fact = self._fact(announced).ended(cause, self._clock(), self._node)
        self._facts.add(fact, prompt=True)

    def announce_again(self) -> None:
        """Other nodes may have put the devices of this node offline: say that they are online.

        The new fence is just above the one that may have been ended, and below that of any session
        which has begun since, on whatever node.
        """
        for announced in self._announced.values():
            self._announce_again(announced)

    def raised(self, key: DeviceKey) -> None:
        """The session of a device has a higher fence: that of an older one elsewhere was higher."""
        announced = self._announced.get(key)
        if announced is not None:
            self._announce_again(announced)

    def _announce_again(self, announced: _Announced) -> None:
        announced.fence = max(announced.fence + 1, announced.member.fence)
        self._facts.add(self._fact(announced))

    def _fact(self, announced: _Announced) -> Fact:
        member = announced.member
        identity = member.identity
        return Fact(
            identity.tenant,
            identity.device,
            True,
            member.session_id,
            announced.fence,
            CONNECTED,
            self._node,
            self._clock(),
            identity.group,
        )
