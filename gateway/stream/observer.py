"""Hooks for metrics. The room calls them and knows no library of metrics."""


class StreamObserver:
    """Does nothing: override what you count.

    Called from the event loop, at most a few times a batch.
    """

    def batch_settled(self, kind: str, messages: int, duplicates: int, seconds: float) -> None:
        """A batch was answered after so many seconds: `kind` is one of batch.Kind, or "lookup"."""

    def batch_retried(self, reason: str, messages: int) -> None:
        """A batch must be repeated.

        `reason` is partial, batch_size, timeout, disconnected, no_responders, conflict, absent,
        limits or error.
        """

    def dead_lettered(self, error: str) -> None:
        """A message was stored in the dead letters."""

    def server_restarted(self) -> None:
        """The embedded nats-server died and was started again."""

    def reconnected(self) -> None:
        """The connection to NATS came back."""

    def looked_up(self) -> None:
        """The place of a device was looked up in the stream."""

    def states_asked(self, whom: str, devices: int) -> None:
        """The states of so many devices are looked up: `direct` of any replica, or of the
        `leader`.
        """

    def state_round_failed(self) -> None:
        """A round of such look-ups had no answer, and is repeated."""
