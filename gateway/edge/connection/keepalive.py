"""Whether the peer of an open connection still answers (RFC 6455 section 5.5.2). Pure."""

import enum


class Step(enum.Enum):
    PING = "ping"
    """Send a ping; anything that the peer sends is an answer."""
    WAIT = "wait"
    """The peer has answered: do nothing until the next step."""
    HALF_OPEN = "half_open"
    """The peer has not answered: drop the connection."""


class Keepalive:
    """The pings of one connection."""

    __slots__ = ("_awaiting", "heard", "opened_at")

    def __init__(self, opened_at: float) -> None:
        """
        Args:
            opened_at: loop time at which the connection opened.
        """
        self._awaiting = False
        self.heard = True
        """Set when the peer sends anything, or when it was not read and so could not be heard."""
        self.opened_at = opened_at

    def step(self, *, interval_s: float, timeout_s: float, readable: bool) -> tuple[Step, float]:
        """The moment for the next step has come.

        Args:
            interval_s: from ping to ping.
            timeout_s: from ping to answer.
            readable: whether the peer is read; if it is not, its answer cannot be heard.

        Returns:
            What to do, and seconds until the next step.
        """
        if not self._awaiting:
            self._awaiting = True
            self.heard = False
            return Step.PING, timeout_s
        if readable and not self.heard:
            return Step.HALF_OPEN, 0.0
        self._awaiting = False
        return Step.WAIT, max(0.0, interval_s - timeout_s)

    def begin_again(self) -> None:
        """The connection was busy with something else: the next step is a ping."""
        self._awaiting = False
