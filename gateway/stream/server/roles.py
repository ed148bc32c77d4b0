"""The users that sign in to NATS, and where the embedded server leaves their addresses."""

from enum import StrEnum
from pathlib import Path


class Role(StrEnum):
    """The users that sign in."""

    GATEWAY = "gateway"
    OPERATORS = "operators"
    CONSUMERS = "consumers"

    @property
    def inbox_prefix(self) -> str:
        """Where answers to this user go."""
        return f"_INBOX.{self.value}"


def url_file(data_dir: Path, role: Role) -> Path:
    """Where a running embedded server leaves the address and password of one of its users."""
    return data_dir / "nats" / f"{role.value}.url"
