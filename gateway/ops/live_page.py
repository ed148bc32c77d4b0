"""The live page: its files, and a stream of snapshots for whoever watches.

One snapshot a second is taken and encoded once, however many watch. A watcher that reads slowly
misses snapshots: it is sent the newest one when it can take it, and the guard ends it if it reads
nothing for ten seconds. The number of watchers is bounded; one more gets 503 and a time.

The page is served to anybody, since it holds nothing; what it shows needs the role `read`. It reads
its events with `fetch`, so the token is in a header and never in a URL.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from http import HTTPStatus
from typing import Any, Final

import orjson
import structlog
from aiohttp import web

from gateway.beats import beat
from gateway.ops.access import Role
from gateway.ops.live_files import LiveFiles
from gateway.ops.pages import error_page
from gateway.ops.protection import Route

_log = structlog.get_logger(__name__)

WATCHERS_MAX: Final = 32
"""Fewer than the guard's connections, so that watchers leave room for orders and scrapes."""
HISTORY_MAX: Final = 300
"""Snapshots that a new watcher gets at once, so that its charts are not empty."""
INTERVAL_S: Final = 1.0
_RETRY_S: Final = 5

_FAILED: Final = b'data: {"failed":true}\n\n'
_BUSY_LOG_S: Final = 60.0


class LivePage:
    """The page of one process."""

    def __init__(
        self, take: Callable[[], dict[str, Any]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Args:
            take: takes a snapshot, as plain values. Its `series` is kept for the charts.
            clock: monotonic seconds.
        """
        self._take = take
        self._clock = clock
        self._history: deque[bytes] = deque(maxlen=HISTORY_MAX)
        self._names = b"[]"
        """Of the values in each entry of the history, which is sent without them: it is long."""
        self._newest = b""
        self._number = 0
        self._came = asyncio.Condition()
        self._failed_at = float("-inf")
        self.watchers = 0
        self._files = LiveFiles()

    def routes(self) -> list[Route]:
        """For the listener."""
        pages = [Route("GET", path, self._file) for path in self._files.bodies]
        return [*pages, Route("GET", "/events", self._events, Role.READ)]

    def work(self) -> Iterable[tuple[str, Coroutine[Any, Any, None]]]:
        """What must run as long as the page is served."""
        yield "live-page", self._run()

    async def _run(self) -> None:
        while True:
            await beat(INTERVAL_S)
            await self.step()

    async def step(self) -> None:
        """Take one snapshot, and tell everybody who watches."""
        self._newest = self._snapshot()
        self._number += 1
        async with self._came:
            self._came.notify_all()

    def _snapshot(self) -> bytes:
        try:
            snapshot = self._take()
            body = orjson.dumps(snapshot, option=orjson.OPT_NON_STR_KEYS)
            series = snapshot["series"]
            names, values = orjson.dumps(list(series)), orjson.dumps(list(series.values()))
        except Exception:  # noqa: BLE001  # the page is needed most when a part of the node fails
            now = self._clock()
            if now - self._failed_at >= _BUSY_LOG_S:
                self._failed_at = now
                _log.log(logging.ERROR, "snapshot_failed", exc_info=True)
            return _FAILED
        self._names = names
        self._history.append(values)
        return b"data: " + body + b"\n\n"

    async def _file(self, request: web.Request) -> web.Response:
        body, kind = self._files.bodies[request.path]
        headers = {"Content-Security-Policy": self._files.policy, "Cache-Control": "no-cache"}
        return web.Response(body=body, content_type=kind, charset="utf-8", headers=headers)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if self.watchers >= WATCHERS_MAX:
            detail = f"{WATCHERS_MAX} pages are open already; close one, or try again"
            response = error_page(HTTPStatus.SERVICE_UNAVAILABLE, "watchers", detail)
            response.headers["Retry-After"] = str(_RETRY_S)
            return response
        self.watchers += 1
        try:
            return await self._stream(request)
        finally:
            self.watchers -= 1

    def _past(self) -> bytes:
        rows = b",".join(self._history)
        return b'data: {"history":{"names":%b,"rows":[%b]}}\n\n' % (self._names, rows)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse()
        stream.content_type = "text/event-stream"
        stream.charset = "utf-8"
        await stream.prepare(request)
        seen = self._number
        try:
            await stream.write(self._past() + self._newest)
            while True:
                async with self._came:
                    while self._number == seen:
                        await self._came.wait()
                seen = self._number
                await stream.write(self._newest)
        except ConnectionError:
            return stream  # whoever watched has gone
