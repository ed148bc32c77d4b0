"""What the edge needs of whoever stores messages.

The stream room provides it; neither imports the other, the composition root connects them.
"""

from collections.abc import Callable
from typing import Protocol


class OutletOwner(Protocol):
    """Who is told what became of its messages."""

    superseded: bool
    """A newer session of the device resends what is unacknowledged."""

    def stored(self, seq: int) -> None:
        """Every message up to and including `seq` is settled."""

    def rejected(self, seq: int, error: str, detail: str) -> None:
        """The message `seq` is in the dead letters."""


class Outlet(Protocol):
    """One session's way into the stream."""

    def message(self, seq: int, message_type: str, time: str, data: bytes) -> None:
        """Store a message in its order."""

    def dead_letter(self, seq: int, error: str, detail: str, time: str, raw: bytes) -> None:
        """Store a message that cannot be an event, in its order."""

    @property
    def full(self) -> bool:
        """Whether the node holds all it may: stop reading this device."""

    def when_drained(self, callback: Callable[[], None]) -> None:
        """Call `callback` once there is room."""


OpenOutlet = Callable[[str, str, str, OutletOwner], Outlet]
"""Opens the outlet of (tenant, device, outbox, owner)."""
