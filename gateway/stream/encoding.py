"""Messages as NATS protocol commands (HPUB), written once into the bytes that go on the wire.

Pure. The headers of one session are prepared once (`SourceHeaders`), a message adds its own when it
arrives, and the batch adds place and reply when it is sent. Nothing here escapes or checks: every
variable part is allow-listed by `tidegate.wire.grammar`, or percent-encoded in `dead_letters.py`.

CloudEvents headers follow the NATS protocol binding (binary content mode, v1.0.3).
"""

from collections.abc import Sequence
from typing import Final, Protocol

from msgspec import Struct

EVENTS: Final = "EVENTS"
DEADLETTERS: Final = "DEADLETTERS"

_EXPECTED: Final = {
    stream: f"Nats-Expected-Stream:{stream}\r\n".encode()
    for stream in (EVENTS, DEADLETTERS, "PRESENCE")  # names.py imports this module
}
"""Set only on messages that get an answer: the last of a batch and, for fast ingest, the first too.
If another stream captures a message in between, the gap shows. The header costs the server a search
in each message that has it."""

_HEADERS_START: Final = b"NATS/1.0\r\nNats-Msg-Id:"

SEQ_REUSED: Final = "seq_reused"
"""`error` of a message whose seq was given to another message before."""
TOO_LARGE: Final = "message_size"
"""`error` of a message larger than the stream takes."""


class SourceHeaders:
    """What all messages of one device and outbox have in common, ready to send."""

    __slots__ = ("_event_subject", "dead_subject", "id_line", "outbox", "source_line")

    def __init__(self, tenant: str, device: str, outbox: str) -> None:
        self._event_subject = f"events.{tenant}.{device}.".encode()
        self.dead_subject = f"deadletters.{tenant}.{device}".encode()
        self.outbox = outbox.encode()
        self.id_line = _HEADERS_START + f"{tenant}:{device}:{outbox}:".encode()
        """The first header line of a message, but for its seq."""
        self.source_line = f"ce-source:tidegate:{tenant}/{device}".encode()

    def event(
        self, seq: int, message_type: str, time: str, payload: bytes, more: bytes = b""
    ) -> "Envelope":
        """A message for EVENTS. `more` is complete header lines (traceparent), or nothing."""
        kind = message_type.encode()
        headers = (
            b"%s%d\r\nce-specversion:1.0\r\n"
            b"ce-id:%s:%d\r\n%s\r\nce-type:%s\r\nce-time:%s\r\n%s"
            % (self.id_line, seq, self.outbox, seq, self.source_line, kind, time.encode(), more)
        )
        return Envelope(
            EVENTS, self._event_subject + kind, headers, payload, self, message_type, time
        )


class Envelope(Struct, frozen=True, gc=False):
    """One message ready to publish. `headers` begins with the message id, and lacks only what its
    batch adds and the blank line.

    A msgspec Struct, as everything that is made once a message: it costs a tenth of a dataclass.
    """

    stream: str
    subject: bytes
    headers: bytes
    payload: bytes
    source: SourceHeaders
    type: str
    """The message type; empty for a dead letter."""
    time: str
    """RFC 3339."""

    @property
    def size(self) -> int:
        """Bytes it holds in memory and adds to a batch."""
        return len(self.subject) + len(self.headers) + len(self.payload)


class Publishable(Protocol):
    """What can be published: an `Envelope`, or another message of one of our streams."""

    @property
    def stream(self) -> str:
        """Which must store it."""

    @property
    def subject(self) -> bytes:
        """Where it goes."""

    @property
    def headers(self) -> bytes:
        """As those of an `Envelope`."""

    @property
    def payload(self) -> bytes:
        """Its data."""


def encode_plain(envelope: Publishable, reply: bytes) -> bytes:
    """One publish of its own, answered by a PubAck on `reply`."""
    expected = _EXPECTED[envelope.stream]
    headers_bytes = len(envelope.headers) + len(expected) + 2
    return b"HPUB %s %s %d %d\r\n%s%s\r\n%s\r\n" % (
        envelope.subject,
        reply,
        headers_bytes,
        headers_bytes + len(envelope.payload),
        envelope.headers,
        expected,
        envelope.payload,
    )


def encode_atomic(
    envelopes: Sequence[Publishable], batch_id: bytes, reply: bytes | None, first: int = 1
) -> bytes:
    """An atomic batch (ADR-50), or a part of one: all of it is stored or nothing.

    Args:
        envelopes: messages of the batch, in order.
        batch_id: its name, at most 64 bytes.
        reply: where to answer; with one, the last message commits the batch.
        first: the place of the first one in the batch, from 1.
    """
    marks = b"Nats-Batch-Id:%s\r\nNats-Batch-Sequence:" % batch_id
    last = first + len(envelopes) - 1 if reply else 0
    answered = reply + b" " if reply else b""
    commit = b"Nats-Batch-Commit:1\r\n" + _EXPECTED[envelopes[-1].stream]
    commands = []
    for place, envelope in enumerate(envelopes, first):
        number = b"%d\r\n%s" % (place, commit if place == last else b"")
        headers_bytes = len(envelope.headers) + len(marks) + len(number) + 2
        commands.append(
            b"HPUB %s %s%d %d\r\n%s%s%s\r\n%s\r\n"
            % (
                envelope.subject,
                answered if place == last else b"",
                headers_bytes,
                headers_bytes + len(envelope.payload),
                envelope.headers,
                marks,
                number,
                envelope.payload,
            )
        )
    return b"".join(commands)


FLOW_MESSAGES: Final = 60_000
"""Messages between two flow acks: more than a batch holds, because the gateway waits only for the
answer to the commit."""


def encode_fast(
    envelopes: list[Envelope], reply: bytes, first: int = 1, *, commit: bool = True
) -> bytes:
    """A fast-ingest batch (ADR-50, `gap fail`), or a part of one: stored in order as it comes.

    Args:
        envelopes: messages of the batch, in order.
        reply: where to answer; its last token is the batch's id to the server, and must be unique.
        first: the place of the first one in the batch, from 1.
        commit: whether the last message ends the batch, and asks for its PubAck.
    """
    last = first + len(envelopes) - 1 if commit else 0
    commands = []
    for place, envelope in enumerate(envelopes, first):
        operation = 2 if place == last else 0 if place == 1 else 1
        expected = _EXPECTED[envelope.stream] if operation != 1 else b""
        headers_bytes = len(envelope.headers) + len(expected) + 2
        commands.append(
            b"HPUB %s %s.%d.fail.%d.%d.$FI %d %d\r\n%s%s\r\n%s\r\n"
            % (
                envelope.subject,
                reply,
                FLOW_MESSAGES,
                place,
                operation,
                headers_bytes,
                headers_bytes + len(envelope.payload),
                envelope.headers,
                expected,
                envelope.payload,
            )
        )
    return b"".join(commands)
