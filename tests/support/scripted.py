"""A scripted gateway on a real socket: a test says frame by frame what the client must meet.

Needs nothing but `websockets`, so that the client's tests run where only the client is installed.
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from support.waiting import eventually, within

WELCOME = {
    "session": "s",
    "credit": 1_000,
    "max_message_bytes": 65_536,
    "first_retry_ms": 20,
    "keepalive_ms": 30_000,
    "max_frame_bytes": 262_144,
    "max_messages_per_frame": 1_000,
    "max_depth": 32,
    "features": ["outboxes"],
}
OLD_WELCOME = {
    name: WELCOME[name]
    for name in ("session", "credit", "max_message_bytes", "first_retry_ms", "keepalive_ms")
}


def jwt_of(**claims: Any) -> str:
    """An unsigned JWT: what a client can read of one."""

    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none'})}.{part(claims)}.{part('signature of a secret')}"


class Peer:
    """One connection of a client, seen from the gateway."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self.outbox = ""
        self.seqs: list[int] = []

    async def say(self, frame: Any) -> None:
        text = frame if isinstance(frame, str | bytes) else json.dumps(frame)
        await self.connection.send(text, text=True)

    async def hear(self) -> Any:
        return json.loads(await within(self.connection.recv()))

    async def greet(self, resume: int | None = None, **welcome: Any) -> dict[str, Any]:
        """Answer the hello. Returns it."""
        hello = await self.hello()
        base = welcome.pop("base", WELCOME)
        seq = hello["oldest"] - 1 if resume is None else resume
        resume_at = {"outbox": hello["outbox"], "seq": seq}
        await self.say({"welcome": {**base, "resume": resume_at, **welcome}})
        return hello

    async def hello(self) -> dict[str, Any]:
        hello: dict[str, Any] = (await self.hear())["hello"]
        self.outbox = hello["outbox"]
        return hello

    async def resume(self, hello: dict[str, Any], credit: int = 1_000) -> None:
        self.outbox = hello["outbox"]
        at = {"outbox": hello["outbox"], "seq": hello["oldest"] - 1}
        await self.say({"resume": at, "credit": credit})

    async def serve(self) -> None:
        """Acknowledge everything, and take further hellos, until the client hangs up."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                frame = json.loads(await self.connection.recv())
                if "hello" in frame if isinstance(frame, dict) else False:
                    await self.resume(frame["hello"])
                    continue
                for message in messages_of(frame):
                    self.seqs.append(message["seq"])
                    await self.say({"ack": message["seq"], "credit": 1_000})

    async def close(self, code: int, reason: Any = "") -> None:
        text = reason if isinstance(reason, str) else json.dumps(reason)
        await self.connection.close(code, text)


def messages_of(frame: Any) -> list[dict[str, Any]]:
    if isinstance(frame, list):
        return frame
    return [frame] if "seq" in frame else []


Play = Callable[[Peer], Awaitable[None]]
Refuse = Callable[[Request], Response | None]


def answer(status: int, body: Any, **headers: str) -> Response:
    """An HTTP answer; a body that is no str goes as JSON."""
    text = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    lines = Headers({name.replace("_", "-"): value for name, value in headers.items()})
    lines["Content-Length"] = str(len(text))
    lines["Connection"] = "close"
    return Response(status, HTTPStatus(status).phrase, lines, text)


class ScriptedGateway:
    """Plays one script a connection, in order; the last one is repeated."""

    def __init__(self, *scripts: Play | Response) -> None:
        self._scripts = list(scripts)
        self._server: Server | None = None
        self.requests: list[Request] = []
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
        """The credentials shown, one a knock."""
        return [each.headers["Authorization"].removeprefix("Bearer ") for each in self.requests]

    async def knocks(self, count: int) -> None:
        """Wait until there were so many."""
        await eventually(lambda: len(self.requests) >= count, f"{count} knocks")

    def _process(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        if isinstance(script, Response):
            return script
        self._next[connection] = script
        return None

    async def _play(self, connection: ServerConnection) -> None:
        peer = Peer(connection)
        self.peers.append(peer)
        try:
            await self._next.pop(connection)(peer)
        except ConnectionClosed:
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
async def scripted(*scripts: Play | Response) -> AsyncIterator[ScriptedGateway]:
    gateway = ScriptedGateway(*scripts)
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop()
    assert not gateway.problems, gateway.problems


async def friendly(peer: Peer) -> None:
    """A gateway with which all is well."""
    await peer.greet()
    await peer.serve()


def closed_port() -> str:
    """An address where nobody listens."""
    return "ws://127.0.0.1:1/v1/device"


async def told(task: "asyncio.Task[Any]") -> BaseException | None:
    """What a task ended with."""
    await within(asyncio.wait({task}))
    return task.exception()
