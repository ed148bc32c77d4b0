"""The devices of this node: which session speaks for which device. The newest connection wins."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from gateway.admission.credential import Identity
from gateway.admission.first_knock import spread_ms
from gateway.edge.device.state_talk import StateTalk
from gateway.session.errors import SessionError
from tidegate.wire import frames

_DEPARTED_MAX: Final = 100_000


class CommandSeat(Protocol):
    """A session of a device, as the queue of commands sees it."""

    fence: int
    """Of the session."""
    receipts: bool
    """Whether the device keeps the ids of queued commands on its disk."""

    @property
    def takes_commands(self) -> bool:
        """Whether a command can be sent now."""

    def command(self, command: frames.Command) -> bool:
        """Send a command; False if the device cannot take it now."""

    def settled(self, command_id: str) -> None:
        """Tell the device that its result is stored."""


class Member(Protocol):
    """The session of a device, of whatever protocol, as the node sees it."""

    fence: int
    """Order among the sessions of this device, on all nodes; 0 before it is known."""

    @property
    def key(self) -> tuple[str, str]:
        """Tenant and device."""

    @property
    def session_id(self) -> str:
        """Names the session; empty before it is established."""

    @property
    def identity(self) -> Identity:
        """From the credential in force."""

    @property
    def state_talk(self) -> StateTalk | None:
        """Of a session which asked for the state of its device."""

    @property
    def seat(self) -> CommandSeat | None:
        """What queued commands are given to; None before the welcome and after the end."""

    def describe(self) -> dict[str, Any]:
        """For the look-up of a device."""

    def end(self, offence: SessionError) -> None:
        """Close with the offence's code and reason."""

    def supersede(self) -> None:
        """A newer session of this device has taken over."""

    def command(self, command: frames.Command) -> bool:
        """Send a command; False if the device cannot take it now."""

    def leave(self, reason: str, retry_ms: int, ticket: str, linger_s: float) -> None:
        """Send the device to another node: `DeviceHandler.leave` describes the arguments."""

    def hold(self, reason: str) -> None:
        """Credit is zero until `release`."""

    def release(self) -> None:
        """Credit comes back."""


class Fleet:
    """Sessions by device, and what their number means for the next storm."""

    def __init__(
        self, *, first_retry_ms_min: int, refusals_per_s: int, clock: Callable[[], float]
    ) -> None:
        """
        Args:
            first_retry_ms_min: the shortest such time.
            refusals_per_s: knocks that this node can refuse. The first knocks of a storm are spread
                so that each gets its answer.
            clock: monotonic seconds.
        """
        self.members: dict[tuple[str, str], Member] = {}
        """By tenant and device. Only the fleet writes it; each ack asks for its length."""
        self._first_retry_ms_min = first_retry_ms_min
        self._refusals_per_s = refusals_per_s
        self._clock = clock
        self._departed: OrderedDict[tuple[str, str], float] = OrderedDict()

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self.members.values()))

    @property
    def first_retry_ms(self) -> int:
        """The time over which a storm of the whole fleet spreads its first knocks."""
        return spread_ms(len(self.members), self._refusals_per_s, least_ms=self._first_retry_ms_min)

    def add(self, member: Member) -> Member | None:
        """Let `member` speak for its device from now on.

        Returns:
            The session that spoke for it until now, if there was one.
        """
        older = self.members.get(member.key)
        self.members[member.key] = member
        return older

    def find(self, tenant: str, device: str) -> Member | None:
        """The session that speaks for a device on this node."""
        return self.members.get((tenant, device))

    def holds(self, member: Member) -> bool:
        """Whether `member` still speaks for its device."""
        return self.members.get(member.key) is member

    def remove(self, member: Member) -> None:
        """`member` no longer speaks for its device; nothing if a newer session has its place."""
        if self.members.get(member.key) is member:
            del self.members[member.key]
            departed = self._departed
            departed[member.key] = self._clock()
            departed.move_to_end(member.key)
            if len(departed) > _DEPARTED_MAX:
                departed.popitem(last=False)

    def known(self, key: tuple[str, str], within_s: float) -> bool:
        """Whether a device is here or left within `within_s`. Its resume costs the stream less."""
        if key in self.members:
            return True
        left_at = self._departed.get(key)
        return left_at is not None and self._clock() - left_at <= within_s
