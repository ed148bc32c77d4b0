"""Traces of messages: the hook, and how a message carries its trace. Pure.

`tidegate.otel` fills the hook with OpenTelemetry. The client itself knows no library of traces.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from msgspec import structs

from tidegate.session import frame_bytes_of
from tidegate.wire.frames import Message

TRACE_BYTES: Final = len(',"trace":""') + 55
"""What a `traceparent` adds to a message."""


class MessageTraces(Protocol):
    """Follows the messages of a device, from `send` until they are settled."""

    def begin(self, message_type: str) -> Any:
        """A message is given to the outbox. What is returned names it until it has a number."""

    def queued(self, begun: Any, number: int) -> None:
        """The message is on the disk, and has this number."""

    def failed(self, begun: Any, error: str) -> None:
        """The message was not put into the outbox."""

    def trace_of(self, number: int) -> str | None:
        """The `traceparent` of this message, if it is traced."""

    def settled(self, number: int) -> None:
        """Every message up to this one is settled."""

    def rejected(self, number: int, error: str) -> None:
        """A message went to the dead letters, or can never be sent."""

    def closed(self) -> None:
        """The device ends. What is not settled stays in the outbox file, without its trace."""


def traced(
    batch: Sequence[Message], trace_of: Callable[[int], str | None], frame_bytes_max: int
) -> list[Message]:
    """These messages with their traces, as far as the frame has room for them.

    Args:
        batch: messages that fit a frame.
        trace_of: the trace of the message with this `seq`, if there is one.
        frame_bytes_max: of a frame.
    """
    room = frame_bytes_max - sum(map(frame_bytes_of, batch))
    marked = []
    for message in batch:
        trace = trace_of(message.seq) if room >= TRACE_BYTES else None
        if trace is None:
            marked.append(message)
        else:
            room -= TRACE_BYTES
            marked.append(structs.replace(message, trace=trace))
    return marked
