"""Messages that rules derive, as NATS protocol commands.

Nothing is escaped here: names and ids are allow-listed by `tidegate.wire.grammar`, and header lines
are copied whole from the event.
"""

from collections.abc import Iterable
from functools import lru_cache
from operator import itemgetter
from typing import Final

from msgspec import Struct

from gateway.consumers.tracing import renamed
from gateway.events.destinations import NatsDestination
from gateway.events.event import Event
from gateway.events.hops import HOPS_HEADER, hops_in
from gateway.events.payloads import Picker
from gateway.events.redrives import RedrivenEvent, redrives_name
from gateway.events.rules import Rule

_COPIED: Final = (b"ce-", b"traceparent:")
_HEAD: Final = b"NATS/1.0\r\nNats-Msg-Id:"
_CRLF_BYTES: Final = 2
_BLOCK_END_BYTES: Final = 4
_EVENTS_CACHED: Final = 8_192
REDRIVE_HEADER: Final = b"Tidegate-Redrive"
"""Tells a target that the message was derived from a dead letter, and which redrive it was."""


class Derived(Struct, frozen=True, gc=False):
    """One message for a target. `headers` lacks only what its batch adds, and the blank line."""

    event: Event
    subject: bytes
    headers: bytes
    payload: bytes
    size: int
    """Bytes that count against the server's largest payload."""


_BATCH_HEADERS_BYTES: Final = 128


def derived_id(event: Event, rule: str) -> str:
    """`Nats-Msg-Id` and idempotency key: the same however often the event is delivered."""
    return f"{event.tenant}:{event.device}:rule/{rule}:{event.stream_seq}"


def redrive_key(event: RedrivenEvent, rule: str) -> str:
    """Value of `Tidegate-Redrive`, by which a redrive is looked up in the target.

    The id does not tell: it is the same as before the event became a letter.
    """
    return f"{event.tenant}:{event.device}:rule/{redrives_name(rule)}:{event.redrive_seq}"


class Deriver:
    """Makes the messages of one rule: with ids of its name, and the event's `ce-*` headers."""

    def __init__(self, rule: Rule, destination: NatsDestination, *, traced: bool = False) -> None:
        """
        Args:
            rule: what the events file says of it.
            destination: its subject.
            traced: whether this process exports a span of the rule, which each message then names.
        """
        self._rule = rule.name
        self._consumer = f"rule/{rule.name}" if traced else ""
        self._rule_bytes = rule.name.encode()
        self._picker = Picker(rule.pick) if rule.pick is not None else None
        self._subject = destination.subject_format
        names = destination.names_in
        self._tokens_of = itemgetter(*names) if names else None

    def message(self, event: Event) -> Derived:
        """The message of an event.

        Raises:
            PickError: the event has no payload.
        """
        payload = event.data if self._picker is None else self._picker.payload(event)
        id_prefix, copied, tokens = _origin(event.subject, event.headers)
        if self._consumer:
            copied = renamed(copied, event, self._consumer)
        headers = b"%b%b:%d\r\n%b" % (id_prefix, self._rule_bytes, event.stream_seq, copied)
        if isinstance(event, RedrivenEvent):
            headers += b"%b:%b\r\n" % (REDRIVE_HEADER, redrive_key(event, self._rule).encode())
        subject = self._subject
        if self._tokens_of is not None:
            subject %= self._tokens_of(tokens)
        size = len(headers) + len(payload) + _BATCH_HEADERS_BYTES
        return Derived(event, subject, headers, payload, size)


@lru_cache(_EVENTS_CACHED)
def _origin(subject: str, headers: bytes) -> tuple[bytes, bytes, tuple[bytes, bytes, bytes]]:
    """What is the same for all rules that an event matches.

    Returns:
        The beginning of the headers, up to the rule's name in the id; the headers behind the id;
        tenant, device and type.
    """
    tenant, device, message_type = subject.encode().split(b".", 3)[1:]
    id_prefix = b"NATS/1.0\r\nNats-Msg-Id:%b:%b:rule/" % (tenant, device)
    hops = b"%b:%d\r\n" % (HOPS_HEADER, hops_in(headers) + 1)
    return id_prefix, _copied(headers) + hops, (tenant, device, message_type)


def _copied(headers: bytes) -> bytes:
    """The lines of a header block that a derived message has too.

    A gateway writes them in one run behind the id. To count the lines of the run costs less than to
    look at each of them.
    """
    start = headers.find(b"\r\n", len(_HEAD)) + _CRLF_BYTES
    marks = headers.find(b"\r\nNats-", start)
    end = (marks if marks >= 0 else len(headers) - _BLOCK_END_BYTES) + _CRLF_BYTES
    run = headers[start:end]
    meant = run.count(b"\nce-") + run.count(b"\ntraceparent:") + run.startswith(b"ce-")
    if headers.startswith(_HEAD) and run.count(b"\n") == meant:
        behind = headers[end:].lower() if marks >= 0 else b""
        if b"\nce-" not in behind and b"\ntraceparent:" not in behind:
            return run
    found = [line for line in headers.split(b"\r\n") if line.lower().startswith(_COPIED)]
    return b"".join(line + b"\r\n" for line in found)


def encode_single(message: Derived, reply: bytes, stream: bytes) -> bytes:
    """One publish of its own, answered by a PubAck on `reply`."""
    return _encoded(message, b" " + reply, b"Nats-Expected-Stream:%b\r\n" % stream)


def encode_unstored(message: Derived) -> bytes:
    """A publish without an answer."""
    return _encoded(message, b"", b"")


def encode_staged(messages: Iterable[Derived], batch_id: bytes, first: int) -> bytes:
    """Messages of an atomic batch (ADR-50), not the last one, which commits it.

    Args:
        messages: in order.
        batch_id: of the batch.
        first: place of the first of them in the batch, from 1.
    """
    marks = _marks(batch_id)
    marks_bytes = len(marks)
    pieces: list[bytes] = []
    for place, message in enumerate(messages, first):
        headers, payload = message.headers, message.payload
        end = b"%d\r\n\r\n" % place
        headers_bytes = len(headers) + marks_bytes + len(end)
        sizes = b" %d %d\r\n" % (headers_bytes, headers_bytes + len(payload))
        pieces += (b"HPUB ", message.subject, sizes, headers, marks, end, payload, b"\r\n")
    return b"".join(pieces)


def encode_commit(
    message: Derived, batch_id: bytes, place: int, reply: bytes, stream: bytes
) -> bytes:
    """The last message of a batch: with it all of the batch is stored, or nothing."""
    more = b"%b%d\r\nNats-Batch-Commit:1\r\nNats-Expected-Stream:%b\r\n" % (
        _marks(batch_id),
        place,
        stream,
    )
    return _encoded(message, b" " + reply, more)


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
