"""A gateway that follows a script: every opening waits until the script answers it."""

import asyncio
import http
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from clients.conformance.errors import Mismatch
from tidegate.wire import frames

SUBPROTOCOL: Final = "tidegate.v1"
_CLOSE_ANSWER_S: Final = 3.0


class Opening:
    """One opening of the client: first a request, then perhaps a connection."""

    def __init__(self, request: Request) -> None:
        self.at = time.monotonic()
        self.request = request
        offered = request.headers.get_all("Sec-WebSocket-Protocol")
        self.offered = [name.strip() for value in offered for name in value.split(",")]
        self.query = parse_qs(urlsplit(request.path).query)
        self.decision: asyncio.Future[Response | None] = asyncio.get_running_loop().create_future()
        self.frames: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        """The frames of the client; None when the connection is closed."""
        self._connected: asyncio.Future[ServerConnection] = (
            asyncio.get_running_loop().create_future()
        )
        self.max_frame_bytes = 1 << 30
        self.max_messages_per_frame = 1 << 30
        self.pending: list[dict[str, Any]] = []
        """Messages of a frame that were received and not checked yet."""

    @property
    def path(self) -> str:
        return urlsplit(self.request.path).path

    @property
    def credential(self) -> str | None:
        """The token shown in the header, else in the subprotocol."""
        header = self.request.headers.get("Authorization")
        return header.removeprefix("Bearer ") if header is not None else self._after("bearer.")

    @property
    def ticket(self) -> str | None:
        header = self.request.headers.get("Tidegate-Ticket")
        return header if header is not None else self._after("ticket.")

    def _after(self, prefix: str) -> str | None:
        found = [name[len(prefix) :] for name in self.offered if name.startswith(prefix)]
        return found[0] if found else None

    def refuse(self, status: int, headers: Mapping[str, str], body: Any) -> None:
        """Answer with an HTTP response. A body that is text is sent as HTML."""
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        fields = Headers(headers)
        fields["Content-Type"] = "text/html" if isinstance(body, str) else "application/json"
        fields["Content-Length"] = str(len(content))
        fields["Connection"] = "close"
        phrase = http.HTTPStatus(status).phrase
        self.decision.set_result(Response(status, phrase, fields, content))

    async def accept(self) -> None:
        """Answer with 101."""
        self.decision.set_result(None)
        async with asyncio.timeout(_CLOSE_ANSWER_S):
            await asyncio.shield(self._connected)

    async def serve(self, connection: ServerConnection) -> None:
        """Receive from the client until the connection ends."""
        self._connected.set_result(connection)
        try:
            while True:
                self.frames.put_nowait(await connection.recv())
        except ConnectionClosed:
            self.frames.put_nowait(None)

    @property
    def connection(self) -> ServerConnection:
        return self._connected.result()

    async def say(self, frame: Any) -> None:
        await self.connection.send(json.dumps(frame))

    async def ping(self) -> None:
        """Ping, and wait for the pong.

        Raises:
            Mismatch: no pong arrives.
        """
        try:
            async with asyncio.timeout(_CLOSE_ANSWER_S):
                await (await self.connection.ping())
        except (TimeoutError, ConnectionClosed):
            raise Mismatch("a ping was not answered") from None

    async def close(self, code: int, reason: Any) -> None:
        """Close the connection.

        Raises:
            Mismatch: the client does not answer the close.
        """
        connection = self.connection
        async with asyncio.timeout(2 * _CLOSE_ANSWER_S):
            await connection.close(code, json.dumps(reason) if reason is not None else "")
        if connection.protocol.close_rcvd is None:
            raise Mismatch(f"the close {code} was not answered")

    def cut(self) -> None:
        """Lose the connection without a close frame."""
        self.connection.transport.abort()

    async def closed(self) -> int:
        """The code with which the client closes.

        Raises:
            Mismatch: the client does not close the connection.
        """
        try:
            async with asyncio.timeout(2 * _CLOSE_ANSWER_S):
                await self.connection.wait_closed()
        except TimeoutError:
            raise Mismatch("the client did not close the connection") from None
        received = self.connection.protocol.close_rcvd
        return received.code if received is not None else frames.CLOSE_ABNORMAL


class Peer:
    """Listens and hands over every opening. It can leave its port and listen again."""

    def __init__(self) -> None:
        self.openings: asyncio.Queue[Opening] = asyncio.Queue()
        self._all: list[Opening] = []
        self._server: Server | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._port}/v1/device"

    async def up(self) -> None:
        """Listen."""
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            self._port,
            process_request=self._decide,
            select_subprotocol=_select,
            compression=None,
            ping_interval=None,
            close_timeout=_CLOSE_ANSWER_S,
            max_size=None,
            server_header=None,
        )
        self._port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Stop listening, and drop every connection."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close(close_connections=False)
        for opening in self._all:
            if not opening.decision.done():
                opening.decision.cancel()
            elif opening._connected.done():  # noqa: SLF001  # of this module
                opening.cut()
        await server.wait_closed()
        self.openings = asyncio.Queue()

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.down()

    async def _decide(self, connection: ServerConnection, request: Request) -> Response | None:
        opening = Opening(request)
        connection.opening = opening  # type: ignore[attr-defined]  # found again in `_serve`
        self._all.append(opening)
        self.openings.put_nowait(opening)
        try:
            return await opening.decision
        except asyncio.CancelledError:
            connection.transport.abort()
            raise

    async def _serve(self, connection: ServerConnection) -> None:
        opening: Opening = connection.opening  # type: ignore[attr-defined]  # set in `_decide`
        await opening.serve(connection)


def _select(_connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in offered else None
