"""A scripted gateway on a real socket, for tests of what the memory of `scripted` leaves out.

It needs only `websockets`, so that the client's tests run where the client alone is installed.
"""

import contextlib
import random
from collections.abc import AsyncIterator
from http import HTTPStatus

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from support.waiting import eventually
from tidegate import Environment
from tidegate.connection import Closed
from tidegate.testing import Answer, Knock, Peer, Play


class SocketEnd:
    """The gateway's end of a connection, for `Peer`."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection

    async def send(self, frame: bytes) -> None:
        try:
            await self._connection.send(frame, text=True)
        except ConnectionClosed as exc:
            raise Closed from exc

    async def receive(self) -> bytes:
        try:
            text = await self._connection.recv(decode=False)
        except ConnectionClosed as exc:
            raise Closed from exc
        assert isinstance(text, bytes)
        return text

    async def close(self, code: int, reason: str) -> None:
        await self._connection.close(code, reason)

    def cut(self) -> None:
        self._connection.transport.abort()


def _response(answer: Answer) -> Response:
    headers = Headers(answer.headers)
    headers["Content-Length"] = str(len(answer.body))
    headers["Connection"] = "close"
    return Response(answer.status, HTTPStatus(answer.status).phrase, headers, answer.body)


class SocketGateway:
    """Plays one script for each connection, in order; the last one is repeated."""

    def __init__(self, *scripts: Play | Answer) -> None:
        self._scripts = list(scripts)
        self._server: Server | None = None
        self.environment = Environment(rng=random.Random(1))
        self.knocks: list[Knock] = []
        self.peers: list[Peer] = []
        self.problems: list[BaseException] = []
        self._next: dict[ServerConnection, Play] = {}

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = next(iter(self._server.sockets)).getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/device"

    @property
    def tokens(self) -> list[str]:
        """The credentials shown, one for each knock."""
        return [knock.credential for knock in self.knocks]

    async def knocked(self, count: int) -> None:
        """Wait for so many knocks."""
        await eventually(lambda: len(self.knocks) >= count, f"{count} knocks")

    def _process(self, connection: ServerConnection, request: Request) -> Response | None:
        token = request.headers["Authorization"].removeprefix("Bearer ")
        self.knocks.append(Knock(self.url, token, request.headers.get("Tidegate-Ticket")))
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        if isinstance(script, Answer):
            return _response(script)
        self._next[connection] = script
        return None

    async def _play(self, connection: ServerConnection) -> None:
        peer = Peer(SocketEnd(connection))
        self.peers.append(peer)
        try:
            await self._next.pop(connection)(peer)
        except Closed:
            pass
        except (AssertionError, KeyError, TypeError, ValueError) as exc:
            self.problems.append(exc)
            raise

    async def start(self, port: int = 0) -> None:
        self._server = await serve(
            self._play, "127.0.0.1", port,
            subprotocols=["tidegate.v1"], process_request=self._process, compression=None,
            close_timeout=1, ping_interval=None,
        )  # fmt: skip

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()


@contextlib.asynccontextmanager
async def on_sockets(*scripts: Play | Answer) -> AsyncIterator[SocketGateway]:
    gateway = SocketGateway(*scripts)
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop()
    assert not gateway.problems, gateway.problems


def closed_port() -> str:
    """An address where nobody listens."""
    return "ws://127.0.0.1:1/v1/device"
