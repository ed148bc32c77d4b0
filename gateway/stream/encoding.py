"""Messages as NATS protocol commands (HPUB), written once into the bytes that go on the wire.

Pure. Headers of one device's session are prepared once (`SourceHeaders`), a message adds its own
when it arrives, and the batch adds place and reply when it is sent. Nothing here escapes or checks:
every variable part is either allow-listed by `tidegate.wire.grammar` or percent-encoded below.

CloudEvents headers follow the NATS protocol binding (binary content mode, v1.0.3).
"""

import hashlib
from typing import Final
from urllib.parse import quote

from msgspec import Struct

EVENTS: Final = "EVENTS"
DEADLETTERS: Final = "DEADLETTERS"

_EXPECTED: Final = {
    stream: f"Nats-Expected-Stream:{stream}\r\n".encode() for stream in (EVENTS, DEADLETTERS)
}
"""On what is answered: of a batch the last, for a message caught by another stream would be a gap
in it; of one that is stored as it comes, also the first. The server searches every message."""

_HEADERS_START: Final = b"NATS/1.0\r\nNats-Msg-Id:"

SEQ_REUSED: Final = "seq_reused"
"""`error` of a message whose seq was given to another message before."""
TOO_LARGE: Final = "message_size"
"""`error` of a message larger than the stream takes."""
LETTER_BYTES_MAX: Final = 4_096
_DETAILS: Final = {SEQ_REUSED: "another message was stored under this seq"}
_REFUSED: Final = "refused by the stream"

_DETAIL_CHARS_MAX: Final = 200


class Envelope(Struct, frozen=True, gc=False):
    """One message ready to publish. `headers` begins with the message id, and lacks only what its
    batch adds and the blank line.

    A msgspec Struct, as all that is made once per message: a tenth of a dataclass's cost.
    """

    stream: str
    subject: bytes
    headers: bytes
    payload: bytes

    @property
    def size(self) -> int:
        """Bytes it holds in memory and adds to a batch."""
        return len(self.subject) + len(self.headers) + len(self.payload)

    def dead_letter(self, seq: int, error: str) -> tuple["Envelope", str]:
        """The letter of this message, which the stream will not take for `error`.

        The message is written as its device might have sent it; the beginning of it, if it was too
        large. The id of a message whose seq was used before gets a digest of its content: letters
        of two such messages are two letters, and the same letter twice is one.

        Returns:
            The letter, and the detail for the device.
        """
        stream, tenant, device, *kind = self.subject.decode().split(".")
        lines = dict(
            line.split(":", 1) for line in self.headers.decode().split("\r\n") if ":" in line
        )
        raw, time = self.payload, lines["ce-time"]
        if stream == "events":
            raw = b'{"seq":%d,"type":"%s","data":%s,"time":"%s"}' % (
                seq, ".".join(kind).encode(), raw, time.encode(),
            )  # fmt: skip
        size = 0
        if error == TOO_LARGE:
            size, raw = len(raw), raw[:LETTER_BYTES_MAX]
        digest = ""
        if error == SEQ_REUSED:
            content = self.subject + b" " + self.payload
            digest = ":" + hashlib.blake2b(content, digest_size=8).hexdigest()
        detail = _DETAILS.get(error, _REFUSED)
        source = SourceHeaders(tenant, device, lines["Nats-Msg-Id"].split(":")[2])
        letter = source.dead_letter(seq, error, detail, time, raw, size, id_suffix=digest)
        return letter, detail


class SourceHeaders:
    """What every message of one device and outbox has in common."""

    __slots__ = ("_dead_subject", "_id", "_outbox", "_source", "_subject")

    def __init__(self, tenant: str, device: str, outbox: str) -> None:
        self._subject = f"events.{tenant}.{device}.".encode()
        self._dead_subject = f"deadletters.{tenant}.{device}".encode()
        self._outbox = outbox.encode()
        self._id = _HEADERS_START + f"{tenant}:{device}:{outbox}:".encode()
        self._source = f"ce-source:tidegate:{tenant}/{device}".encode()

    def event(
        self, seq: int, message_type: str, time: str, payload: bytes, more: bytes = b""
    ) -> Envelope:
        """A message for EVENTS. `more` is complete header lines (traceparent), or nothing."""
        kind = message_type.encode()
        headers = (
            b"%s%d\r\nce-specversion:1.0\r\n"
            b"ce-id:%s:%d\r\n%s\r\nce-type:%s\r\nce-time:%s\r\n%s"
            % (self._id, seq, self._outbox, seq, self._source, kind, time.encode(), more)
        )
        return Envelope(EVENTS, self._subject + kind, headers, payload)

    def dead_letter(
        self,
        seq: int,
        error: str,
        detail: str,
        time: str,
        raw: bytes,
        original_bytes: int = 0,
        *,
        id_suffix: str = "",
    ) -> Envelope:
        """A message for DEADLETTERS: the original bytes, the reason in headers.

        `original_bytes` is the size of the original where `raw` is only its beginning, else 0.
        """
        headers = (
            b"%s%d%s\r\nce-time:%s\r\n%s\r\n"
            b"Tidegate-Outbox:%s\r\nTidegate-Seq:%d\r\nTidegate-Error:%s\r\nTidegate-Detail:%s\r\n"
            % (
                self._id,
                seq,
                id_suffix.encode(),
                time.encode(),
                self._source,
                self._outbox,
                seq,
                error.encode(),
                # Details quote what the device sent; percent-encoding keeps CR LF and friends out.
                quote(detail[:_DETAIL_CHARS_MAX], safe=" $.,:;'`()[]{}<>=/-_").encode(),
            )
        )
        if original_bytes:
            headers += b"Tidegate-Truncated:%d\r\n" % original_bytes
        return Envelope(DEADLETTERS, self._dead_subject, headers, raw)


def encode_plain(envelope: Envelope, reply: bytes) -> bytes:
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
    envelopes: list[Envelope], batch_id: bytes, reply: bytes | None, first: int = 1
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
"""Messages between flow acks we ask for: more than a batch holds, since we wait for the commit."""


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
