"""One connection of a lean device on asyncio: the shell under every device of this folder.

The vehicle of locust (`vehicle.py`) has a shell of its own, because locust runs on gevent, whose
sockets block a greenlet and know no asyncio. Both shells use the same bytes (`wire.py`).
"""

import asyncio
from typing import cast

from loadtest.devices.wire import CLOSE, PING, PONG, Inbound, masked_frame


class Connection(asyncio.Protocol):
    """Knocks, greets, answers pings, and hands over what it hears.

    A subclass says what is sent (`request`, `greeting`) and what becomes of what is heard.
    """

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._inbound = Inbound()

    def request(self) -> bytes:
        """The opening handshake."""
        raise NotImplementedError

    def greeting(self) -> bytes:
        """What is sent once the connection is upgraded."""
        raise NotImplementedError

    def heard(self, payload: bytes) -> None:
        """A message of the server."""
        raise NotImplementedError

    def refused(self, response: bytes) -> None:
        """The server did not upgrade the connection."""
        raise NotImplementedError

    def lost(self) -> None:
        """The connection is gone, whichever side ended it."""
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self.request())

    def data_received(self, data: bytes) -> None:
        inbound = self._inbound
        if not inbound.upgraded:
            response = inbound.answer(data)
            if response is None:
                return
            if response:
                self.refused(response)
                return
            self.write(self.greeting())
            data = b""
        for opcode, payload in inbound.frames(data):
            if opcode == PING:
                self.write(masked_frame(PONG, payload))
            elif opcode != CLOSE:
                self.heard(payload)

    def connection_lost(self, _exc: Exception | None) -> None:
        self.transport = None
        self.lost()

    def write(self, data: bytes) -> None:
        """Send bytes, unless the connection is gone."""
        if self.transport is not None:
            self.transport.write(data)

    def abort(self) -> None:
        """End the connection without a close frame."""
        if self.transport is not None:
            self.transport.abort()
