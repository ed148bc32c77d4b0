"""Messages as NATS protocol commands (HPUB), written once into the bytes that go on the wire.

Pure. The headers of one session are prepared once (`SourceHeaders`), a message adds its own when it
arrives, and the batch adds place and reply when it is sent. Nothing here escapes or checks: every
variable part is allow-listed by `tidegate.wire.grammar`, or percent-encoded in `dead_letters.py`.

CloudEvents headers follow the NATS protocol binding (binary content mode, v1.0.3).
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Raw, Struct

from gateway.stream.names import COMMANDS, DEADLETTERS, EVENTS, PRESENCE

EXPECTED: Final = {
    stream: f"Nats-Expected-Stream:{stream}\r\n".encode()
    for stream in (EVENTS, DEADLETTERS, COMMANDS, PRESENCE)
}
"""Set only on messages that get an answer: the last of a batch and, for fast ingest, the first too.
If another stream captures a message in between, the gap shows. The header costs the server a search
in each message that has it."""

_VERSION: Final = b"NATS/1.0\r\n"
_LINE_END: Final = b"\r\n"
_TO_HEADERS: Final = _LINE_END + _VERSION
"""What is between the command line and the headers."""
UNSEEN_BYTES: Final = len(_VERSION) - len(_LINE_END)
"""The size on a command line counts the first line of the headers, which is not in a `body`, and
does not count the line end behind the payload, which is."""


class _Numbered(dict[int, bytes]):
    """A text with a number in it, by number. To format it costs four times as much."""

    def __init__(self, text: bytes, most: int) -> None:
        """
        Args:
            text: has one `%d`.
            most: the highest number whose text is kept.
        """
        super().__init__((number, text % number) for number in range(most + 1))
        self._text = text

    def __missing__(self, number: int) -> bytes:
        return self._text % number


_PLACES: Final = _Numbered(b"%d\r\n", 4_000)
HEADERS_SIZES: Final = _Numbered(b"%d ", 1_023)
_SIZES: Final = _Numbered(b"%d" + _TO_HEADERS, 4_095)
"""With what is between the command line and the headers."""

ID_AT: Final = len(b"Nats-Msg-Id:")
"""Where the id begins in the `body` of a message, of which it is the first line."""

SEQ_REUSED: Final = "seq_reused"
"""`error` of a message whose seq was given to another message before."""
TOO_LARGE: Final = "message_size"
"""`error` of a message larger than the stream takes."""


class Publication(Struct, frozen=True, gc=False):
    """One message ready to publish. It lacks only what its batch adds: place, reply and sizes.

    A batch adds its headers before those of the message, so that these and the payload are one
    piece. A msgspec Struct, as everything that is made once a message: it costs a tenth of a
    dataclass.
    """

    stream: str
    """Which must store it."""
    command: bytes
    """`HPUB`, the subject and a blank."""
    headers_bytes: int
    """Bytes of the headers, with their first line and the empty one."""
    body: bytes
    """The header lines behind the first one, the empty line, the payload and the line end."""

    @property
    def subject(self) -> bytes:
        """Where it goes."""
        return self.command[5:-1]

    @property
    def headers(self) -> bytes:
        """Its headers, without the empty line."""
        return _VERSION + self.body[: self._payload_at - len(_LINE_END)]

    @property
    def payload(self) -> bytes:
        """Its data."""
        return self.body[self._payload_at : -len(_LINE_END)]

    @property
    def size(self) -> int:
        """Bytes it holds in memory and adds to a batch."""
        return len(self.command) + len(self.body)

    @property
    def _payload_at(self) -> int:
        return self.headers_bytes - len(_VERSION)


class Envelope(Publication, frozen=True, gc=False):
    """A message of a device, ready to publish."""

    source: "SourceHeaders"
    type: str
    """The message type; empty for a dead letter."""
    time: str
    """RFC 3339."""


def publication(stream: str, subject: bytes, lines: bytes, payload: bytes) -> Publication:
    """A message of one of our streams. `lines` are complete header lines."""
    return Publication(stream, *_pieces(subject, lines, payload))


def letter_envelope(source: "SourceHeaders", lines: bytes, payload: bytes, time: str) -> Envelope:
    """A message of a device for DEADLETTERS. `lines` are complete header lines."""
    pieces = _pieces(source.dead_subject, lines, payload)
    return Envelope(DEADLETTERS, *pieces, source, "", time)


def _pieces(subject: bytes, lines: bytes, payload: bytes) -> tuple[bytes, int, bytes]:
    """Command, size of the headers, and body."""
    headers_bytes = len(_VERSION) + len(lines) + len(_LINE_END)
    return b"HPUB %b " % subject, headers_bytes, b"%b\r\n%b\r\n" % (lines, payload)


class SourceHeaders:
    """What all messages of one device and outbox have in common, ready to send.

    Messages of one frame mostly have one type and one time, so what the last message made of these
    is kept for the next.
    """

    __slots__ = (
        "_command",
        "_end",
        "_event_command",
        "_shared_bytes",
        "_time",
        "_to_time",
        "_type",
        "dead_subject",
        "id_line",
        "middle",
        "outbox",
        "source_line",
    )

    def __init__(self, tenant: str, device: str, outbox: str) -> None:
        self._event_command = f"HPUB events.{tenant}.{device}.".encode()
        self.dead_subject = f"deadletters.{tenant}.{device}".encode()
        self.outbox = outbox.encode()
        self.id_line = f"Nats-Msg-Id:{tenant}:{device}:{outbox}:".encode()
        """The first header line of a message, but for its seq."""
        self.source_line = f"ce-source:tidegate:{tenant}/{device}".encode()
        self.middle = b"\r\nce-specversion:1.0\r\nce-id:%b:" % self.outbox
        """What is between the seq in the id of a message and the seq in its `ce-id`."""
        self._type = self._time = ""
        self._command = self._to_time = self._end = b""
        self._shared_bytes = len(_VERSION) + len(self.id_line) + len(self.middle)

    def event(
        self, seq: int, message_type: str, time: str, payload: bytes | Raw, more: bytes = b""
    ) -> Envelope:
        """A message for EVENTS. `more` is complete header lines (traceparent), or nothing."""
        if message_type != self._type or time != self._time:
            self._prepare(message_type, time)
        number = b"%d" % seq
        end = b"%b%b\r\n" % (self._end[:-2], more) if more else self._end
        headers_bytes = self._shared_bytes + 2 * len(number) + len(end)
        body = b"".join((self.id_line, number, self.middle, number, end, payload, _LINE_END))
        return Envelope(EVENTS, self._command, headers_bytes, body, self, message_type, time)

    @property
    def id_prefix(self) -> bytes:
        """What the ids of its messages begin with; the seq comes behind it."""
        return self.id_line[ID_AT:]

    @property
    def common_bytes(self) -> int:
        """About how many bytes a message has beside its payload."""
        return self._shared_bytes + len(self._event_command) + len(self._end)

    def shared(self, message_type: str, time: str) -> tuple[bytes, bytes, int]:
        """What messages of this type and time have in common.

        Returns:
            Their command, the headers behind the seq in their `ce-id` with the empty line, and the
            bytes of all their headers without the two seqs.
        """
        if message_type != self._type or time != self._time:
            self._prepare(message_type, time)
        return self._command, self._end, self._shared_bytes + len(self._end)

    def _prepare(self, message_type: str, time: str) -> None:
        """Make what the messages of this type and time have in common."""
        if message_type != self._type:
            kind = message_type.encode()
            self._type = message_type
            self._command = b"%b%b " % (self._event_command, kind)
            self._to_time = b"\r\n%b\r\nce-type:%b\r\nce-time:" % (self.source_line, kind)
        self._time = time
        self._end = b"%b%b\r\n\r\n" % (self._to_time, time.encode())


def encode_plain(message: Publication, reply: bytes) -> bytes:
    """One publish of its own, answered by a PubAck on `reply`."""
    lines, body = EXPECTED[message.stream], message.body
    more = len(lines)
    sizes = message.headers_bytes + more, len(body) + UNSEEN_BYTES + more
    return b"%b%b %d %d%b%b%b" % (message.command, reply, *sizes, _TO_HEADERS, lines, body)


def encode_atomic(
    messages: Sequence[Publication], batch_id: bytes, reply: bytes | None, first: int = 1
) -> bytes:
    """An atomic batch (ADR-50), or a part of one: all of it is stored or nothing.

    Args:
        messages: of the batch, in order.
        batch_id: its name, at most 64 bytes.
        reply: where to answer; with one, the last message commits the batch.
        first: the place of the first one in the batch, from 1.
    """
    marks = b"Nats-Batch-Id:%b\r\nNats-Batch-Sequence:" % batch_id
    marks_bytes = len(marks)
    pieces: list[bytes] = []
    extend = pieces.extend
    answered = messages[-1] if reply else None
    for place, message in enumerate(messages, first):
        number, body = _PLACES[place], message.body
        if message is answered:
            break
        more = marks_bytes + len(number)
        extend(
            (
                message.command,
                HEADERS_SIZES[message.headers_bytes + more],
                _SIZES[len(body) + UNSEEN_BYTES + more],
                marks, number, body,
            )
        )  # fmt: skip
    if answered is not None and reply:
        commit = b"%b%bNats-Batch-Commit:1\r\n%b" % (marks, number, EXPECTED[answered.stream])
        extend(pieces_of(answered, reply + b" ", commit))
    return b"".join(pieces)


FLOW_MESSAGES: Final = 60_000
"""Messages between two flow acks: more than a batch holds, because the gateway waits only for the
answer to the commit."""


_APPEND: Final = _Numbered(b".%d.fail.%%d.1.$FI " % FLOW_MESSAGES, 1_000)
"""The end of the reply of each message of a fast batch but the first and the last."""


def encode_fast(
    messages: Sequence[Publication], reply: bytes, first: int = 1, *, commit: bool = True
) -> bytes:
    """A fast-ingest batch (ADR-50, `gap fail`), or a part of one: stored in order as it comes.

    Args:
        messages: of the batch, in order.
        reply: where to answer; its last token is the batch's id to the server, and must be unique.
        first: the place of the first one in the batch, from 1.
        commit: whether the last message ends the batch, and asks for its PubAck.
    """
    last = first + len(messages) - 1 if commit else 0
    pieces: list[bytes] = []
    extend = pieces.extend
    for place, message in enumerate(messages, first):
        if place in (1, last):
            operation = 2 if place == last else 0
            whole = b"%b.%d.fail.%d.%d.$FI " % (reply, FLOW_MESSAGES, place, operation)
            extend(pieces_of(message, whole, EXPECTED[message.stream]))
            continue
        body = message.body
        extend(
            (
                message.command,
                reply,
                _APPEND[place],
                HEADERS_SIZES[message.headers_bytes],
                _SIZES[len(body) + UNSEEN_BYTES],
                body,
            )
        )
    return b"".join(pieces)


def pieces_of(message: Publication, reply: bytes, lines: bytes) -> tuple[bytes, ...]:
    """The command of a message, with a reply and a blank, and with header lines of its batch."""
    more = len(lines)
    sizes = b"%d %d" % (message.headers_bytes + more, len(message.body) + UNSEEN_BYTES + more)
    return message.command, reply, sizes, _TO_HEADERS, lines, message.body
