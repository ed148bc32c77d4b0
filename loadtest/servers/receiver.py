"""A receiver of events over HTTP that misbehaves when it is told to, and keeps what it heard."""

import asyncio
import random
from dataclasses import dataclass
from typing import Final, Self

from aiohttp import web

from loadtest.servers.process import free_port

HANGS_S: Final = 30.0
MOODS: Final = ("500", "429", "hangs", "resets", "late")
"""How it can misbehave, to one request in two. `late` is a success after the sender gave up."""


@dataclass(frozen=True, slots=True)
class Received:
    """One request that a receiver answered with success, or heard before it broke off."""

    event: str
    """`ce-source` and `ce-id`."""
    key: str
    """`Idempotency-Key`."""
    accepted: bool


class Receiver:
    """An HTTP server of this process. A context; `kill` and `start` in between."""

    def __init__(self, rng: random.Random, late_s: float = HANGS_S) -> None:
        """
        Args:
            rng: which requests suffer from the mood.
            late_s: how long a late answer takes.
        """
        self._rng = rng
        self._late_s = late_s
        self._port = free_port()
        self._runner: web.AppRunner | None = None
        self.mood = "well"
        self.received: list[Received] = []

    @property
    def url(self) -> str:
        """Where events go."""
        return f"http://127.0.0.1:{self._port}/events"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.kill()

    async def start(self) -> None:
        """Listen."""
        application = web.Application()
        application.router.add_post("/events", self._handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()

    async def kill(self) -> None:
        """Listen no more, and break off what is under way."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        mood = self.mood if self._rng.random() < 0.5 else "well"  # one in two
        headers = request.headers
        event = f"{headers['ce-source']} {headers['ce-id']}"
        self.received.append(Received(event, headers["Idempotency-Key"], mood in ("well", "late")))
        if mood == "500":
            return web.Response(status=500, text="not now")
        if mood == "429":
            return web.Response(status=429, headers={"Retry-After": "1"})
        if mood == "resets" and request.transport is not None:
            request.transport.abort()
        if mood in ("hangs", "late"):
            await asyncio.sleep(self._late_s)
        return web.Response(status=204)
