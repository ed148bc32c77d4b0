"""What a device needs of a connection, whatever carries it: TCP and TLS, or a test's memory.

Refused      an answer came, but it was not a connection
Silent       no answer came
NotAGateway  something answered that is not a gateway of this contract
Closed       an open connection has ended
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

from tidegate.answers import Refusal
from tidegate.errors import AttemptEnded
from tidegate.wire import frames


class Refused(AttemptEnded):
    """An answer came, but it was not a connection."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class Silent(AttemptEnded):
    """No answer came."""


class NotAGateway(AttemptEnded):
    """Something answered that is not a gateway: no WebSocket, or a foreign certificate."""


class Closed(AttemptEnded):
    """A connection has ended. `code` and `reason` are those of the peer's close frame."""

    def __init__(self, code: int = frames.CLOSE_ABNORMAL, reason: str = "") -> None:
        super().__init__(f"{code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class Connection(Protocol):
    """An open connection. Frames are JSON text in UTF-8."""

    async def send(self, frame: bytes) -> None:
        """Send a frame; wait while the peer does not read.

        Raises:
            Closed: the connection has ended.
        """

    async def receive(self) -> bytes:
        """The next frame.

        Raises:
            Closed: the connection has ended, and all frames before its end were received.
        """

    async def close(self) -> None:
        """Close in order. Raises nothing if the connection has ended already."""

    def abort(self) -> None:
        """Cut the connection."""


Connect = Callable[[str, str, str | None], Awaitable[Connection]]
"""Knocks at an address, with a credential and perhaps a ticket. Raises `Refused`, `Silent` or
`NotAGateway`."""
