"""A publisher without devices: the batches of a gateway, as fast as a stream takes them.

It is the limit of the machine: no gateway that stores its messages in such batches can be faster.
Messages have the subject, the headers and the payload of a gateway's. While a batch is being
stored, the next one is made and sent.
"""

import asyncio
import json
import secrets
from collections.abc import Iterator, Sequence
from typing import Final, Literal
from urllib.parse import urlsplit

from loadtest.devices.wire import PAYLOAD
from loadtest.errors import TargetError

Kind = Literal["atomic", "fast", "linked"]
"""How batches are published (ADR-50): stored whole or not at all, in order as they come, or each
message with the name of the one before."""

BATCH_MESSAGES: Final[dict[Kind, int]] = {"atomic": 4_000, "fast": 1_000, "linked": 1_000}
"""Those of a gateway's largest batches."""

_ANSWER: Final = b'"stream":'
_PROBLEMS: Final = (b'"error"', b"-ERR")
_READ_BYTES: Final = 1 << 16
_FLOW_MESSAGES: Final = 60_000
"""Messages between two flow acks of a fast batch: more than it has."""
_UNDER_WAY_MAX: Final = 2
"""Batches that are sent and not stored yet."""
_BATCH_ID_CHARS_MAX: Final = 64

_PLAIN: Final = b"NATS/1.0"
_WITH_STATUS: Final = b"NATS/1.0 200"
"""What a linked message begins with, so that nats-server does not look for trace headers."""

_Message = tuple[bytes, bytes]
"""Subject and headers of a message."""


class BarePublisher:
    """Publishes over one connection, and waits for each batch to be stored."""

    def __init__(self, kind: Kind, devices: int) -> None:
        """
        Args:
            kind: of the batches.
            devices: take turns.
        """
        self._kind = kind
        self._batch = BATCH_MESSAGES[kind]
        self._names = [f"bare-{number}".encode() for number in range(devices)]
        self._outbox = secrets.token_hex(6).encode()
        self._inbox = b"_INBOX.gateway." + secrets.token_hex(6).encode()
        self._sent = 0
        self._batches = 0
        self.stored = 0
        """Messages, as the answers say."""

    async def run(self, url: str) -> None:
        """Publish until cancelled.

        Args:
            url: of nats-server, with user and password.

        Raises:
            TargetError: a batch is refused, or the connection is lost.
        """
        reader, writer = await _connected(url, self._inbox)
        try:
            under_way, tail = 0, b""
            while True:
                while under_way < _UNDER_WAY_MAX:
                    writer.write(self._next_batch())
                    under_way += 1
                data = await reader.read(_READ_BYTES)
                if not data or any(problem in data for problem in _PROBLEMS):
                    raise TargetError(f"a bare publisher is refused: {data[:200]!r}")
                if b"PING\r\n" in data:
                    writer.write(b"PONG\r\n")
                answers = (tail + data).count(_ANSWER)
                tail = data[1 - len(_ANSWER) :]
                under_way -= answers
                self.stored += answers * self._batch
        finally:
            writer.transport.abort()

    def _next_batch(self) -> bytes:
        self._batches += 1
        name = b"%s.%d" % (self._inbox, self._batches)
        encode = {"atomic": _atomic, "fast": _fast, "linked": _linked}[self._kind]
        return b"".join(encode(list(self._messages()), name))

    def _messages(self) -> Iterator[_Message]:
        names, outbox = self._names, self._outbox
        for number in range(self._sent, self._sent + self._batch):
            name, seq = names[number % len(names)], number // len(names) + 1
            headers = (
                b"NATS/1.0\r\nNats-Msg-Id:default:%s:%s:%d\r\nce-specversion:1.0\r\n"
                b"ce-id:%s:%d\r\nce-source:tidegate:default/%s\r\nce-type:battery.low\r\n"
                b"ce-time:2026-11-26T10:00:00.123456Z\r\n" % (name, outbox, seq, outbox, seq, name)
            )
            yield b"events.default.%s.battery.low" % name, headers
        self._sent += self._batch


def _atomic(messages: Sequence[_Message], name: bytes) -> Iterator[bytes]:
    batch_id = name.replace(b".", b"-")[-_BATCH_ID_CHARS_MAX:]
    for place, (subject, headers) in enumerate(messages, 1):
        marks = b"Nats-Batch-Id:%s\r\nNats-Batch-Sequence:%d\r\n" % (batch_id, place)
        if place == len(messages):
            yield _command(subject, name, headers + marks + b"Nats-Batch-Commit:1\r\n")
        else:
            yield _command(subject, b"", headers + marks)


def _fast(messages: Sequence[_Message], name: bytes) -> Iterator[bytes]:
    for place, (subject, headers) in enumerate(messages, 1):
        operation = 2 if place == len(messages) else 0 if place == 1 else 1
        reply = b"%s.%d.fail.%d.%d.$FI" % (name, _FLOW_MESSAGES, place, operation)
        yield _command(subject, reply, headers)


def _linked(messages: Sequence[_Message], name: bytes) -> Iterator[bytes]:
    link = b""
    for place, (subject, headers) in enumerate(messages, 1):
        reply = name if place == len(messages) else b""
        between = 1 < place < len(messages)
        lines = headers.replace(_PLAIN, _WITH_STATUS, 1) if between else headers
        yield _command(subject, reply, lines + link)
        _, _, line = headers.partition(b"Nats-Msg-Id:")
        link = b"Nats-Expected-Last-Msg-Id:%s\r\n" % line.partition(b"\r\n")[0]


def _command(subject: bytes, reply: bytes, headers: bytes) -> bytes:
    size = len(headers) + 2
    return b"HPUB %s %s %d %d\r\n%s\r\n%s\r\n" % (
        subject, reply, size, size + len(PAYLOAD), headers, PAYLOAD,
    )  # fmt: skip


async def _connected(url: str, inbox: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    await reader.readline()  # INFO
    connect = {
        "user": where.username,
        "pass": where.password,
        "verbose": False,
        "headers": True,
        "no_responders": True,
    }
    writer.write(b"CONNECT %b\r\nSUB %b.> 1\r\n" % (json.dumps(connect).encode(), inbox))
    return reader, writer
