"""How a rule's events reach its target, as the rule sees it."""

from collections.abc import Sequence
from typing import Protocol

from gateway.consumers.target import Rejected
from gateway.events.event import Event


class Delivery(Protocol):
    """Raises TargetAway, TargetRefused and NotOwner from every method but `close`."""

    @property
    def mark(self) -> int:
        """The target's last sequence that is known; 0 where the target has none."""

    @property
    def finds_again(self) -> bool:
        """Whether `resume` finds what was delivered behind an older position, however much."""

    @property
    def ahead(self) -> int:
        """How many portions may be sent before the first of them is delivered."""

    async def open(self) -> None:
        """Connect, and check that the target is one that rules may use."""

    async def begin(self) -> None:
        """The rule begins: what the target holds now is not of this rule."""

    async def resume(self, after_seq: int, mark: int) -> None:
        """Find out what was delivered behind the stored position.

        Args:
            after_seq: the position in EVENTS.
            mark: of the target, stored with it.
        """

    def send(self, events: Sequence[Event]) -> None:
        """Begin to deliver events, if the target takes some while earlier ones are under way.

        Each portion that is sent is delivered afterwards, in the same order.
        """

    async def deliver(self, events: Sequence[Event]) -> Sequence[Rejected]:
        """Deliver events in stream order. Returns once each has arrived or is rejected.

        They are sent now, unless portions are sent that were not yet delivered: then they are the
        first of those.
        """

    async def close(self) -> None:
        """Give up what is open. Raises nothing."""
