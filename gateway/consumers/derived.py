"""Messages that rules derive, as NATS protocol commands.

Nothing is escaped here: names and ids are allow-listed by `tidegate.wire.grammar`, and header lines
are copied whole from the event.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from msgspec import Struct

from gateway.consumers.delivery import HOPS_HEADER, hops_in
from gateway.events.event import Event
from gateway.events.redrives import RedrivenEvent, redrives_name

_COPIED: Final = (b"ce-", b"traceparent:")
_EVENTS_CACHED: Final = 4_096
REDRIVE_HEADER: Final = b"Tidegate-Redrive"
"""Tells a target that the message was derived from a dead letter, and which redrive it was."""


class Derived(Struct, frozen=True, gc=False):
    """One message for a target. `headers` lacks only what its batch adds, and the blank line."""

    event: Event
    subject: bytes
    headers: bytes
    payload: bytes

    @property
    def size(self) -> int:
        """Bytes that count against the server's largest payload."""
        return len(self.headers) + len(self.payload) + _BATCH_HEADERS_BYTES


_BATCH_HEADERS_BYTES: Final = 128


def derived_id(event: Event, rule: str) -> str:
    """`Nats-Msg-Id` and idempotency key: the same however often the event is delivered."""
    return f"{event.tenant}:{event.device}:rule/{rule}:{event.stream_seq}"


def redrive_key(event: RedrivenEvent, rule: str) -> str:
    """Value of `Tidegate-Redrive`, by which a redrive is looked up in the target.

    The id does not tell: it is the same as before the event became a letter.
    """
    return f"{event.tenant}:{event.device}:rule/{redrives_name(rule)}:{event.redrive_seq}"


def derived(event: Event, rule: str, subject: str, payload: bytes) -> Derived:
    """The message of an event, with the event's `ce-*` headers."""
    headers = b"NATS/1.0\r\nNats-Msg-Id:%b\r\n%b" % (
        derived_id(event, rule).encode(),
        _copied(event.headers),
    )
    if isinstance(event, RedrivenEvent):
        headers += b"%b:%b\r\n" % (REDRIVE_HEADER, redrive_key(event, rule).encode())
    return Derived(event, subject.encode(), headers, payload)


@lru_cache(_EVENTS_CACHED)
def _copied(headers: bytes) -> bytes:
    """What is the same for all rules that an event matches."""
    lines = [line for line in headers.split(b"\r\n") if line.lower().startswith(_COPIED)]
    return b"\r\n".join([*lines, b"%b:%d" % (HOPS_HEADER, hops_in(headers) + 1), b""])


def encode_single(message: Derived, reply: bytes, stream: bytes) -> bytes:
    """One publish of its own, answered by a PubAck on `reply`."""
    return _encoded(message, b" " + reply, b"Nats-Expected-Stream:%b\r\n" % stream)


def encode_unstored(message: Derived) -> bytes:
    """A publish that nobody answers."""
    return _encoded(message, b"", b"")


def encode_staged(messages: Sequence[Derived], batch_id: bytes) -> bytes:
    """All of an atomic batch (ADR-50) but its last message, which commits it."""
    marks = _marks(batch_id)
    return b"".join(
        _encoded(message, b"", marks + b"%d\r\n" % place)
        for place, message in enumerate(messages[:-1], 1)
    )


def encode_commit(
    messages: Sequence[Derived], batch_id: bytes, reply: bytes, stream: bytes
) -> bytes:
    """The last message of a batch: with it all of the batch is stored, or nothing."""
    more = b"%b%d\r\nNats-Batch-Commit:1\r\nNats-Expected-Stream:%b\r\n" % (
        _marks(batch_id),
        len(messages),
        stream,
    )
    return _encoded(messages[-1], b" " + reply, more)


def _marks(batch_id: bytes) -> bytes:
    return b"Nats-Batch-Id:%b\r\nNats-Batch-Sequence:" % batch_id


def _encoded(message: Derived, reply: bytes, more: bytes) -> bytes:
    headers = message.headers + more + b"\r\n"
    return b"HPUB %b%b %d %d\r\n%b%b\r\n" % (
        message.subject,
        reply,
        len(headers),
        len(headers) + len(message.payload),
        headers,
        message.payload,
    )
