"""The owner of messages on their way into the stream.

The edge makes owners and the stream tells them what became of their messages; neither room imports
the other.
"""

from typing import Protocol


class MessageOwner(Protocol):
    """The session that a message came from."""

    @property
    def superseded(self) -> bool:
        """Whether a newer session of the device sends again what is unacknowledged here."""

    def stored(self, seq: int) -> None:
        """Every message up to and including `seq` is settled."""

    def rejected(self, seq: int, error: str, detail: str) -> None:
        """The message `seq` is in the dead letters."""
