"""Hooks of the edge for metrics. Labels are from fixed sets, never from devices."""


class EdgeObserver:
    """Does nothing: override what you count. Called from the event loop; must return at once."""

    def accepted(self) -> None:
        """A TCP connection was accepted."""

    def refused(self, error: str, reason: str) -> None:
        """A handshake was refused; `reason` says more (of a 401: why)."""

    def opened(self) -> None:
        """A WebSocket session was opened."""

    def closed(self, cause: str, seconds: float) -> None:
        """It ended: `cause` is an offence, or device, lost, half_open, slow_reader, drain."""

    def received(self, messages: int, size: int) -> None:
        """A frame of messages came from a device; `size` in bytes."""

    def acknowledged(self) -> None:
        """An ack frame went to a device."""

    def slowed(self) -> None:
        """A connection sent too much beside messages, and is not read for a while."""

    def answer_lost(self) -> None:
        """A refusal could not be written: the peer had hung up."""

    def accept_failed(self) -> None:
        """The system refused to accept (out of descriptors); accepting pauses."""

    def commanded(self, outcome: str) -> None:
        """A command was sent, or answered: sent, ok, failed, unknown,
        congested.
        """

    def state_sent(self, way: str) -> None:
        """A state went to a device: in its `welcome`, in a `frame`; or `later`, since it does not
        read.
        """
