"""One request to NATS over a blocking socket, for a command that must answer at once.

asyncio, TLS and nats-py take 0.1 s to import. This speaks the few lines of the NATS protocol that
one request needs (https://docs.nats.io/reference/reference-protocols/nats-protocol), to a server
without TLS that takes a user and a password.
"""

import json
import os
import re
import socket
import time
from types import TracebackType
from typing import Any, Final, Self

from gateway.stream.errors import ConnectError, NotAnswered, Unreachable

_URL: Final = re.compile(
    r"nats://(?:(?P<user>[A-Za-z0-9_.-]+):(?P<password>[A-Za-z0-9_.-]+)@)?"
    r"(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*):(?P<port>[0-9]{1,5})"
)
_PORT_MAX: Final = 65_535
_LINE_BYTES_MAX: Final = 65_536
_NO_RESPONDERS: Final = b" 503"


class NoResponders(NotAnswered):
    """Nobody listens on the subject."""


class RequestConnection:
    """A connection for one request. A context: it is closed at the end."""

    def __init__(self, url: str, *, name: str, timeout_s: float) -> None:
        """Connect and sign in.

        Args:
            url: the server, of the form nats://user:password@host:port.
            name: how the server shows this connection.
            timeout_s: for all of it.

        Raises:
            ConnectError: this form of address needs another client, or the server needs TLS.
            Unreachable: the server is away, or refuses the sign-in.
        """
        parts = _URL.fullmatch(url)
        if parts is None or int(parts["port"]) > _PORT_MAX:
            raise ConnectError("not of the form nats://user:password@host:port")
        self._give_up_at = time.monotonic() + timeout_s
        try:
            address = parts["host"], int(parts["port"])
            self._socket = socket.create_connection(address, timeout=timeout_s)
        except OSError as exc:
            raise Unreachable(str(exc)) from exc
        try:
            self._stream = self._socket.makefile("rb")
            self._info = self._sign_in(parts["user"], parts["password"], name)
        except OSError as exc:
            self._socket.close()
            raise Unreachable(str(exc)) from exc
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._stream.close()
        self._socket.close()

    def takes(self, body: bytes) -> bool:
        """Whether the server takes a message of this size."""
        return len(body) <= int(self._info.get("max_payload", 0))

    def request(self, subject: str, body: bytes, *, inbox_prefix: str, timeout_s: float) -> bytes:
        """Send the request, and wait for its answer.

        Raises:
            NoResponders: nobody listens on the subject.
            NotAnswered: the server denies the request, or sends what cannot be read.
            TimeoutError: no answer in time.
            OSError: the connection is lost.
        """
        self._give_up_at = time.monotonic() + timeout_s
        inbox = f"{inbox_prefix}.{os.urandom(11).hex()}"
        head = f"SUB {inbox} 1\r\nPUB {subject} {inbox} {len(body)}\r\n".encode()
        self._socket.sendall(head + body + b"\r\n")
        while True:
            operation, arguments = self._next()
            if operation in (b"MSG", b"HMSG"):
                return self._message(arguments, with_headers=operation == b"HMSG")
            if operation == b"-ERR":
                raise NotAnswered(arguments.decode(errors="replace").strip("'"))

    def _sign_in(self, user: str | None, password: str | None, name: str) -> dict[str, Any]:
        operation, arguments = self._next()
        if operation != b"INFO":
            raise Unreachable("this is no NATS server")
        info: dict[str, Any] = json.loads(arguments)
        if info.get("tls_required") or not info.get("headers"):
            raise ConnectError("the server needs another client")
        options: dict[str, Any] = {
            "verbose": False,
            "pedantic": False,
            "lang": "python3",
            "version": "1",
            "protocol": 1,
            "name": name,
            "headers": True,
            "no_responders": True,
        }
        if user is not None:
            options |= {"user": user, "pass": password}
        self._socket.sendall(f"CONNECT {json.dumps(options)}\r\nPING\r\n".encode())
        while operation != b"PONG":
            operation, arguments = self._next()
            if operation == b"-ERR":
                raise Unreachable(arguments.decode(errors="replace"), refused=True)
        return info

    def _next(self) -> tuple[bytes, bytes]:
        """The next operation and its arguments. Pings are answered."""
        while True:
            line = self._read_line()
            operation, _, arguments = line.partition(b" ")
            operation = operation.upper()
            if operation != b"PING":
                return operation, arguments.strip()
            self._socket.sendall(b"PONG\r\n")

    def _message(self, arguments: bytes, *, with_headers: bool) -> bytes:
        try:
            sizes = [int(size) for size in arguments.split()[-2 if with_headers else -1 :]]
        except ValueError:
            raise NotAnswered("the server sends what cannot be read") from None
        data = self._read(sizes[-1] + 2)[:-2]
        if not with_headers:
            return data
        headers, body = data[: sizes[0]], data[sizes[0] :]
        if not body and headers.partition(b"\r\n")[0].startswith(b"NATS/1.0" + _NO_RESPONDERS):
            raise NoResponders("nobody listens on the subject")
        return body

    def _read_line(self) -> bytes:
        self._bound()
        line = self._stream.readline(_LINE_BYTES_MAX)
        if not line.endswith(b"\n"):
            raise ConnectionError("the server has closed the connection")
        return line.rstrip(b"\r\n")

    def _read(self, size: int) -> bytes:
        self._bound()
        data = self._stream.read(size)
        if len(data) < size:
            raise ConnectionError("the server has closed the connection")
        return data

    def _bound(self) -> None:
        """Wait for the socket until the time of giving up, and no longer.

        Raises:
            TimeoutError: it has come.
        """
        left_s = self._give_up_at - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._socket.settimeout(left_s)
