"""Answers of JetStream on the shortest way: from the socket to their handlers, past nats-py's task.

A device's ack waits for its message's PubAck. So messages for `subscribe_raw` are delivered as soon
as they are read, and wake no task. They can be read between two polls of the loop, too: where
thousands of connections come or go at once, a turn of the loop takes many times as long as
JetStream needs for a batch.
"""

import asyncio
import os
from typing import Final

from gateway.stream.link.parsing import BulkParser

_READ_BYTES: Final = 262_144
"""As many as uvloop reads at once."""


class DirectReading(asyncio.Protocol):
    """Between the transport of a connection to NATS and nats-py's stream reader."""

    def __init__(
        self, reader: asyncio.Protocol, parser: BulkParser, transport: asyncio.Transport
    ) -> None:
        """
        Args:
            reader: the protocol that feeds nats-py's task.
            parser: of the same connection.
            transport: of the same connection.
        """
        self._reader = reader
        self._parser = parser
        self._transport = transport
        self._delivering = False
        encrypted = transport.get_extra_info("sslcontext") is not None
        connection = None if encrypted else transport.get_extra_info("socket")
        self._descriptor: int | None = None if connection is None else connection.fileno()

    def look(self) -> None:
        """Read what has come by now, instead of when the loop polls next.

        The loop goes on behind it in the same stream of bytes, so messages keep their order. What
        comes over TLS is left to the loop, and so is the end of the connection, which the loop
        sees when it reads.
        """
        descriptor = self._descriptor
        if descriptor is None or self._delivering:
            return
        if self._transport.is_closing() or not self._transport.is_reading():
            return  # the number may belong to another socket, or nats-py cannot keep up
        try:
            data = os.read(descriptor, _READ_BYTES)
        except OSError:
            return
        if not data:
            return
        try:
            self.data_received(data)
        except Exception as exc:  # noqa: BLE001  # a fault of ours: seen and ended as the loop does it
            asyncio.get_running_loop().call_exception_handler(
                {"message": "look() failed", "exception": exc, "transport": self._transport}
            )
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._delivering = True
        try:
            rest = self._parser.take(data)
        finally:
            self._delivering = False
        if rest:
            self._reader.data_received(rest)

    def eof_received(self) -> bool | None:
        return self._reader.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._reader.connection_lost(exc)

    def pause_writing(self) -> None:
        self._reader.pause_writing()

    def resume_writing(self) -> None:
        self._reader.resume_writing()
