"""One connection of a vehicle on a gevent socket: the shell for locust.

`connection.py` is the shell on asyncio. There are two because a gevent socket blocks its greenlet,
and locust runs each user as a greenlet. Both use the same bytes (`wire.py`).
"""

import contextlib
import socket
import struct
import time
from typing import Final
from urllib.parse import urlsplit

import gevent.socket
import gevent.ssl

from loadtest.devices.wire import (
    CLOSE,
    PING,
    PONG,
    TEXT,
    Answer,
    Inbound,
    handshake_request,
    masked_frame,
)
from loadtest.errors import LoadtestError
from tidegate.wire import frames

CONNECT_TIMEOUT_S: Final = 20.0
_BODY_TIMEOUT_S: Final = 1.0
_RESPONSE_BYTES_MAX: Final = 65_536
_NORMAL_CLOSURE: Final = frames.CLOSE_NORMAL.to_bytes(2, "big")


class Refused(LoadtestError):
    """The gateway refused the knock."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        super().__init__(str(answer))


class ClosedByGateway(ConnectionResetError):
    """The gateway closed the session, with a code."""

    def __init__(self, code: int | None) -> None:
        self.code = code
        super().__init__(f"closed with {code}")


class Link:
    """One connection, from its knock to its end."""

    def __init__(
        self, url: str, token: str, ticket: str | None, context: gevent.ssl.SSLContext | None
    ) -> None:
        """Connect and knock.

        Args:
            url: of the gateway.
            token: the credential.
            ticket: that is shown, if there is one.
            context: for wss: what is trusted; what the system trusts if None.

        Raises:
            OSError: there is no connection, or it ended before the gateway answered.
            Refused: the gateway refused.
        """
        parts = urlsplit(url)
        assert parts.hostname is not None
        port = parts.port or (443 if parts.scheme == "wss" else 80)
        raw = gevent.socket.create_connection((parts.hostname, port), timeout=CONNECT_TIMEOUT_S)
        self._inbound = Inbound()
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if parts.scheme == "wss":
                context = context or gevent.ssl.create_default_context()
                raw = context.wrap_socket(raw, server_hostname=parts.hostname)
            self._socket = raw
            raw.sendall(handshake_request(token.encode(), ticket))
            self._read_answer()
        except BaseException:  # also when the greenlet is killed: nothing else closes the socket
            raw.close()
            raise

    def _read_answer(self) -> None:
        response: bytes | None = None
        size = 0
        while response is None:
            data = self._socket.recv(8_192)
            size += len(data)
            if not data or size > _RESPONSE_BYTES_MAX:
                raise ConnectionResetError("closed before it answered")
            response = self._inbound.answer(data)
        if response:
            with contextlib.suppress(OSError):  # the body nearly always comes with the head
                self._socket.settimeout(_BODY_TIMEOUT_S)
                while data := self._socket.recv(8_192):
                    response += data
            raise Refused(Answer(response))

    def say(self, text: bytes) -> None:
        """Send a text.

        Raises:
            OSError: the connection is gone.
        """
        self._socket.sendall(masked_frame(TEXT, text))

    def hear(self, until: float) -> list[bytes]:
        """Texts that have come; wait for the first until the moment `until` at most.

        Raises:
            OSError: the connection is gone.
        """
        texts = self._texts(b"")  # what came with the answer to the handshake
        if texts:
            return texts
        try:
            self._socket.settimeout(max(0.001, until - time.monotonic()))
            data = self._socket.recv(65_536)
        except TimeoutError:
            return []
        if not data:
            raise ConnectionResetError("closed by the gateway")
        return self._texts(data)

    def _texts(self, data: bytes) -> list[bytes]:
        texts = []
        for opcode, payload in self._inbound.frames(data):
            if opcode == TEXT:
                texts.append(payload)
            elif opcode == PING:
                self._socket.sendall(masked_frame(PONG, payload))
            elif opcode == CLOSE:
                self._socket.sendall(masked_frame(CLOSE, payload[:2]))
                raise ClosedByGateway(int.from_bytes(payload[:2], "big") if payload else None)
        return texts

    def close(self) -> None:
        """Send a close frame, and do not wait for the answer."""
        with contextlib.suppress(OSError):
            self._socket.sendall(masked_frame(CLOSE, _NORMAL_CLOSURE))
        self._socket.close()

    def cut(self) -> None:
        """End the connection as a lost network does: with a reset at most."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._socket.close()
