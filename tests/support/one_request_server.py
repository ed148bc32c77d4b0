"""A NATS server as far as one request needs it, with answers that a test writes."""

import contextlib
import json
import socket
import threading

INFO = {"headers": True, "max_payload": 1000}


class OneRequestServer:
    """Takes one connection, and answers its request with the bytes that are given."""

    def __init__(self, answer: bytes, info: dict, pong: bytes) -> None:
        self._answer, self._info, self._pong = answer, info, pong
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.lines: list[bytes] = []
        """What the client has sent."""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"nats://operators:pw@127.0.0.1:{self._listening.getsockname()[1]}"

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)  # wakes `accept`
        self._listening.close()
        self._thread.join(10)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listening.accept()
            with connection, connection.makefile("rb") as stream:
                connection.sendall(f"INFO {json.dumps(self._info)}\r\n".encode())
                for line in stream:
                    self.lines.append(line.rstrip())
                    if line == b"PING\r\n":
                        connection.sendall(self._pong)
                    elif line.startswith(b"PUB "):
                        self.lines.append(stream.readline().rstrip())
                        for each in self._answer:  # byte by byte: the client waits for the rest
                            connection.sendall(bytes([each]))
                        if not self._answer:
                            return


@contextlib.contextmanager
def one_request_server(answer=b"", info=INFO, pong=b"PONG\r\n"):
    server = OneRequestServer(answer, info, pong)
    try:
        yield server
    finally:
        server.close()


def message(body: bytes) -> bytes:
    return b"MSG inbox 1 %d\r\n%b\r\n" % (len(body), body)


NO_RESPONDERS = b"HMSG inbox 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"
