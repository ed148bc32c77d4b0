"""What can have become of a command."""

from enum import StrEnum
from typing import Final

NOT_UNDERSTOOD: Final = "not_understood"


class Status(StrEnum):
    """What has become of a queued command."""

    QUEUED = "queued"
    SENT = "sent"
    DELIVERED = "delivered"
    DONE = "done"
    FAILED = "failed"
    EXPIRED = "expired"
    UNKNOWN = "unknown"
    """Nobody knows whether it was done. It is never sent again."""
