"""What can go wrong between the gateway and JetStream.

StreamError
 +-- ServerError           the embedded nats-server did not start or stay up
 +-- ConnectError          a setting of the NATS connection cannot be used
 +-- Unreachable           no server answers, or none accepts the sign-in; with the reason
 +-- IncompatibleServer    the operator's nats-server cannot take what the gateway sends
 +-- IncompatibleStream    an existing stream differs from what the gateway promises
 +-- StreamMissing         there is no such stream
 +-- NotAnswered           JetStream answered a question with something unexpected
 +-- StreamChanged         a stream is not the one that was read before
 +-- SnapshotError         a snapshot of a stream cannot be taken, or cannot be put back
"""


class StreamError(Exception):
    """Base of this room's errors."""


class ServerError(StreamError):
    """The embedded nats-server did not start or stay up."""


class ConnectError(StreamError):
    """A setting of the NATS connection cannot be used."""


class Unreachable(StreamError):
    """No NATS server answers, or none accepts the sign-in. The message says why.

    Attributes:
        refused: a server answered and refused the sign-in, or it is not trusted.
    """

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


class IncompatibleServer(StreamError):
    """The operator's nats-server cannot take what the gateway sends. The message says what."""


class IncompatibleStream(StreamError):
    """An existing stream differs from what the gateway promises. The message says in what."""


class NotAnswered(StreamError):
    """JetStream answered a question with something unexpected; it may be asked again."""


class StreamMissing(StreamError):
    """There is no such stream."""


class StreamChanged(StreamError):
    """A stream was made anew or went back while it was read. The message says in what."""


class SnapshotError(StreamError):
    """A snapshot of a stream cannot be taken or put back. The message names the stream."""
