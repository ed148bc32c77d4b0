"""What the edge needs of the part that stores messages.

The stream room provides it; neither imports the other, and the composition connects them.
"""

from collections.abc import Callable
from typing import Protocol

from gateway.session.intake import Storable
from gateway.session.owner import MessageOwner
from tidegate.wire.frames import Hello


class Outlet(Protocol):
    """One session's way into the stream."""

    def store(self, messages: list[Storable], received_at: str) -> None:
        """Store messages in their order, those that cannot be events in the dead letters.

        Args:
            messages: of one frame.
            received_at: RFC 3339; the time of those that bring none.
        """

    @property
    def full(self) -> bool:
        """Whether the node holds all it may: stop reading this device."""

    def when_drained(self, callback: Callable[[], None]) -> None:
        """Call `callback` once there is room."""


OpenOutlet = Callable[[str, str, str, MessageOwner], Outlet]
"""Opens the outlet of (tenant, device, outbox, owner)."""


class ResumePoints(Protocol):
    """Where outboxes stand in the stream.

    Both answers are the last settled seq of `hello.outbox`, at least `hello.oldest - 1`.
    """

    def known(self, tenant: str, device: str, hello: Hello) -> int | None:
        """The answer if it is certain without asking the stream, else None."""

    async def look_up(self, tenant: str, device: str, hello: Hello) -> int:
        """Ask the stream; `oldest - 1` if it does not answer soon. The outlet then asks it before
        it stores anything.
        """
