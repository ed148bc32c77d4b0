"""How a rule's events reach its target, as the rule sees it."""

from collections.abc import Sequence
from typing import Final, Protocol

from gateway.consumers.target import Rejected
from gateway.events.event import Event

HOPS_MAX: Final = 8
"""A derived message that would be the eighth of its chain is a dead letter: rules that feed
themselves end here."""
HOPS_HEADER: Final = b"Tidegate-Hops"


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


def hops_of(event: Event) -> int:
    """How many rules an event has passed."""
    return hops_in(event.headers)


def hops_in(headers: bytes) -> int:
    """How many rules an event with this header block has passed."""
    if HOPS_HEADER not in headers:  # nearly always, and this is asked of each event
        return 0
    text = Event("", headers, b"", 0, 0).header(HOPS_HEADER)
    return int(text) if text.isdecimal() and len(text) < HOPS_MAX else 0
