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
 +-- NotAState             a text that cannot be the state of a device
 +-- StateConflict         a state was to be set only at another version than the present one
 +-- SnapshotError         a snapshot of a stream cannot be taken, or cannot be put back
 +-- StoreAway             whether a fact of a command is stored is not known: ask again
 +-- FactConflict          somebody else has stored a fact of a command since it was read
 +-- EntryError            an entry of the queue of commands can be given to no device
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


class StoreAway(StreamError):
    """The answer about a queued command is not known. What was asked may have been done."""


class FactConflict(StreamError):
    """Somebody else has stored a fact of a command since the last one was read."""


class EntryError(StreamError):
    """An entry of the queue that no device can be given. The message says why.

    Attributes:
        id: of the command; empty if the entry does not name itself.
    """

    def __init__(self, entry_id: str, detail: str) -> None:
        super().__init__(detail)
        self.id = entry_id


class NotAState(StreamError):
    """A text cannot be the state of a device: no JSON, no object, or too large."""


class StateConflict(StreamError):
    """A state was to be set only if a version is the present one, and it is not.

    Attributes:
        present: the present version; `none` if no state was set.
    """

    def __init__(self, present: str) -> None:
        super().__init__(f"the present version is {present}")
        self.present = present
