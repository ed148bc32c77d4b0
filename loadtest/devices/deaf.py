"""Connections that are welcomed and then stop reading."""

import asyncio
import socket
from typing import Final

from loadtest.devices.connection import Connection
from loadtest.devices.wire import handshake_request, hello, is_welcome

_RECEIVE_BUFFER_BYTES: Final = 4_096
"""Small, so that the gateway soon has to keep what the device does not read."""


class Deaf(Connection):
    """Connects, greets, and reads no more after the welcome."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self._token = token
        self.ready = False

    def request(self) -> bytes:
        return handshake_request(self._token.encode())

    def greeting(self) -> bytes:
        return hello("d")

    def heard(self, payload: bytes) -> None:
        if is_welcome(payload) and self.transport is not None:
            self.transport.pause_reading()
            self.ready = True

    def refused(self, response: bytes) -> None:
        del response
        self.abort()

    def lost(self) -> None:
        """Nothing depends on it."""


async def connect_deaf(port: int, token: str) -> Deaf:
    """Open a connection that will stop reading."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, ("127.0.0.1", port))
    _transport, device = await loop.create_connection(lambda: Deaf(token), sock=connection)
    return device
