"""A stream filled with events as a gateway stores them, faster than devices could send them."""

import asyncio
import json
import secrets
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

import nats
import nats.js.errors
from nats.js.api import StreamConfig

_BATCH: Final = 1_000
_BATCH_TIMEOUT_S: Final = 10.0
_READ_BYTES: Final = 1 << 16
_OUTBOX: Final = "c031baeced4e9994"
_CONNECT: Final = {"verbose": False, "pedantic": False, "headers": True, "name": "tidegate-fill"}

Payload = Callable[[int], bytes]
"""The `data` of the event of that number, from 0."""


def plain(number: int) -> bytes:
    """A small event of a vehicle."""
    return b'{"soc":%d,"voltage":12.345,"lat":52.1,"lon":13.4,"note":"ok"}' % (number % 101)


def event_of(number: int, devices: int, payload: Payload) -> tuple[str, int, bytes]:
    """Device, seq and data of an event: devices take turns."""
    return f"veh-{number % devices}", number // devices + 1, payload(number)


async def make_streams(url: str) -> None:
    """EVENTS and DEADLETTERS, unless they are there."""
    client = await nats.connect(url)
    for name in ("EVENTS", "DEADLETTERS"):
        config = StreamConfig(name, subjects=[f"{name.lower()}.>"], allow_direct=True)
        await client.jetstream().add_stream(config)
    await client.close()


async def fill(
    url: str, first: int, count: int, *, devices: int = 100, payload: Payload = plain
) -> None:
    """Store `count` events, numbered from `first`, each exactly once though servers may die.

    A part of which not every event was acknowledged is sent again with the same ids.
    """
    sent, publisher = first, None
    try:
        while sent < first + count:
            part = range(sent, min(sent + _BATCH, first + count))
            try:
                publisher = publisher or await _Publisher.connected(url)
                async with asyncio.timeout(_BATCH_TIMEOUT_S):
                    await publisher.publish(part, devices, payload)
            except (OSError, TimeoutError, _NotStoredError):
                if publisher is not None:
                    publisher.close()
                publisher = None
                await asyncio.sleep(0.2)
            else:
                sent = part.stop
    finally:
        if publisher is not None:
            publisher.close()


async def stored(url: str) -> int:
    """Messages in EVENTS."""
    client = await nats.connect(url)
    try:
        return (await client.jetstream().stream_info("EVENTS")).state.messages
    finally:
        await client.close()


class _NotStoredError(Exception):
    """The connection has ended, or JetStream refused an event."""


class _Publisher:
    """A connection of the NATS client protocol which publishes without a client's cost.

    nats-py spends 100 us on each acknowledged message, so a million of them would take minutes.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._inbox = f"_INBOX.{secrets.token_hex(8)}".encode()

    @classmethod
    async def connected(cls, url: str) -> "_Publisher":
        """
        Raises:
            OSError: nobody listens there.
        """
        where = urlsplit(url)
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        publisher = cls(reader, writer)
        connect = json.dumps(_CONNECT).encode()
        writer.write(b"CONNECT %b\r\nSUB %b 1\r\n" % (connect, publisher._inbox))
        return publisher

    async def publish(self, numbers: Sequence[int], devices: int, payload: Payload) -> None:
        """Publish the events of these numbers, and wait until each is acknowledged.

        Raises:
            _NotStoredError: one is not.
            OSError: the connection is lost.
        """
        self._writer.write(
            b"".join(_command(self._inbox, *event_of(n, devices, payload)) for n in numbers)
        )
        acked, rest = 0, b""
        while acked < len(numbers):
            heard = await self._reader.read(_READ_BYTES)
            if not heard or b'"error"' in heard or b"-ERR" in heard:
                raise _NotStoredError
            if b"PING\r\n" in heard:
                self._writer.write(b"PONG\r\n")
            lines = (rest + heard).split(b"\r\n")
            rest = lines.pop()
            acked += sum(line.startswith(b'{"stream":') for line in lines)

    def close(self) -> None:
        self._writer.close()


def _command(inbox: bytes, device: str, seq: int, data: bytes) -> bytes:
    headers = (
        f"NATS/1.0\r\nNats-Msg-Id: default:{device}:{_OUTBOX}:{seq}\r\nce-specversion: 1.0\r\n"
        f"ce-id: {_OUTBOX}:{seq}\r\nce-source: tidegate:default/{device}\r\n"
        "ce-type: battery.low\r\nce-time: 2026-11-25T10:00:00.123Z\r\n\r\n"
    ).encode()
    subject = f"events.default.{device}.battery.low".encode()
    sizes = b"%d %d" % (len(headers), len(headers) + len(data))
    return b"HPUB %b %b %b\r\n%b%b\r\n" % (subject, inbox, sizes, headers, data)
