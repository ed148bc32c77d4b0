"""How far a consumer has come in a stream, and whether that stream is still the one it read.

A sequence alone is not enough. A stream that was deleted and made again, or put back from a backup,
gives the same sequences to other messages; a consumer that read on would skip some unnoticed. So a
position holds the stream's creation time and the id of the message at its sequence.

nats-server gives a restored stream a new creation time. An id is given to one message only. So a
stream that has the same id under the same sequence has the same messages up to there, and a
consumer may read on. A stream that was restored from before the position has another message there,
or none.
"""

from dataclasses import dataclass, replace

from gateway.events.errors import StreamReplaced, StreamWentBack


@dataclass(frozen=True, slots=True)
class Position:
    """Everything up to and including `seq` is processed; 0 is nothing yet."""

    created: str
    """When the stream was made, in the server's own words."""
    seq: int
    message_id: str = ""
    """`Nats-Msg-Id` of the message at `seq`; empty if there is none, or none was recorded."""

    def within(self, stream: "StreamState") -> "Position":
        """This position in `stream`, which `resume` has found to be the one that was read."""
        return self if self.created == stream.created else replace(self, created=stream.created)


@dataclass(frozen=True, slots=True)
class StreamState:
    """The stream as the server describes it now."""

    created: str
    first_seq: int
    last_seq: int


@dataclass(frozen=True, slots=True)
class Start:
    """Where to read on."""

    seq: int
    """The first sequence that is not yet processed."""
    expired: int = 0
    """Sequences that left the stream before they were read. Some may have been other consumers'."""


def resume(position: Position, stream: StreamState, id_there: str | None) -> Start:
    """Where a consumer reads on.

    Args:
        position: where it stands.
        stream: the stream as it is.
        id_there: `Nats-Msg-Id` of the message at the position, None if no message is there (any
            more).

    Raises:
        StreamReplaced: the stream was made anew, and holds other messages or may do so.
        StreamWentBack: it holds less than was read, or other messages under the same sequences.
    """
    restored = bool(position.message_id) and position.message_id == id_there
    if position.created != stream.created and not restored:
        raise StreamReplaced(position.created, stream.created)
    if position.seq > stream.last_seq:
        raise StreamWentBack(
            f"the position is {position.seq} and the stream ends at {stream.last_seq}"
        )
    if id_there is not None and position.message_id and id_there != position.message_id:
        raise StreamWentBack(
            f"message {position.seq} was {position.message_id} and is now {id_there}"
        )
    expired = max(0, stream.first_seq - (position.seq + 1))
    return Start(max(position.seq + 1, stream.first_seq), expired)
