"""The operators' listener: metrics, health, status, and what its process adds.

Its rules:

- `/metrics`, `/healthz` and `/readyz` answer any `Host`, since probes send a pod's address. All
  other pages answer to an IP literal, to `localhost` and to the names of `ops.hosts` only
  (`hosts.py` says why).
- A request that changes something is a POST of JSON. A page on another site can send that only with
  a consent that this port never gives (CORS).
- What changes something or names a device needs a token or this machine (`access.py`,
  `protection.py`).
- Every body, head, connection and wait is bounded (`guard.py`).
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.ops.errors import BadOrder, OpsListenError
from gateway.ops.guard import ConnectionGuard
from gateway.ops.hosts import HostRule
from gateway.ops.pages import BODY_BYTES_MAX, error_page, json_page
from gateway.ops.protection import Handler, Protection, Route, add_security_headers

HEADERS_MAX: Final = 64
HEADER_BYTES_MAX: Final = 4_096

_KEEPALIVE_S: Final = 75.0
"""Longer than the usual interval of a scrape, so that a connection is kept for the next."""
_LINGER_S: Final = 1.0
_ANY_HOST: Final = frozenset({"/metrics", "/healthz", "/readyz"})
_PRIVATE: Final = 0o600
_HANDSHAKE_TIMEOUT_S: Final = 5.0
"""Of TLS."""


@dataclass(frozen=True, slots=True)
class Pages:
    """Where the pages of any process come from. Called on each request, and awaited if need be."""

    metrics: Callable[[], tuple[bytes, str] | Awaitable[tuple[bytes, str]]]
    """Body and content type of the Prometheus exposition."""
    not_ready: Callable[[], str | None]
    """Why this process does not do what it should, or None."""
    status: Callable[[], dict[str, Any] | Awaitable[dict[str, Any]]]
    ready_details: Callable[[], dict[str, Any]] = dict
    """What `/readyz` says beside that."""


class OpsListener:
    """The pages, on a port of their own."""

    def __init__(
        self,
        pages: Pages,
        *,
        protection: Protection | None = None,
        routes: Iterable[Route] = (),
        hosts: Iterable[str] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """
        Args:
            pages: what every process shows.
            protection: stands before the routes; needed if there are any.
            routes: what this kind of process adds. Handlers raise `BadOrder` and read
                bodies with `json_body`.
            hosts: names that are a good `Host`, besides IP literals and `localhost`.
            tls: of the port; None for plain HTTP.
        """
        self._pages = pages
        self._rule = HostRule(hosts)
        self._tls = tls
        self._server: asyncio.Server | None = None
        application = web.Application(middlewares=[self._guarded], client_max_size=BODY_BYTES_MAX)
        application.on_response_prepare.append(add_security_headers)
        router = application.router
        router.add_get("/metrics", self._metrics)
        router.add_get("/healthz", self._healthz)
        router.add_get("/readyz", self._readyz)
        router.add_get("/status", self._status)
        for route in routes:
            assert protection is not None
            router.add_route(route.method, route.path, protection.guard(route))
        self._runner = web.AppRunner(
            application,
            access_log=None,
            shutdown_timeout=1.0,
            logger=_server_log(),
            keepalive_timeout=_KEEPALIVE_S,
            lingering_time=_LINGER_S,
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
            max_headers=HEADERS_MAX,
            auto_decompress=False,  # a small body could inflate to any size
        )

    async def start(self, host: str, port: int) -> int:
        """Bind and serve.

        Returns:
            The port, chosen by the system if `port` is 0.

        Raises:
            OpsListenError: the address cannot be bound.
        """
        guard, loop = await self._taker()
        try:
            self._server = await loop.create_server(
                guard.connect,
                host,
                port,
                reuse_address=True,
                ssl=self._tls,
                ssl_handshake_timeout=None if self._tls is None else _HANDSHAKE_TIMEOUT_S,
            )
        except OSError as exc:
            raise OpsListenError(host, port, exc) from exc
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def _taker(self) -> tuple[ConnectionGuard, asyncio.AbstractEventLoop]:
        """What takes the connections of either kind of socket."""
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        loop = asyncio.get_running_loop()
        return ConnectionGuard(server, loop=loop), loop

    async def start_unix(self, path: Path) -> None:
        """Serve on a socket file that only this user can open.

        Raises:
            OpsListenError: the file cannot be made.
        """
        guard, loop = await self._taker()
        try:
            self._server = await loop.create_unix_server(guard.connect, sock=_bind_private(path))
        except OSError as exc:
            raise OpsListenError(str(path), 0, exc) from exc

    async def stop(self) -> None:
        """Stop listening, and end all connections."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse a foreign `Host`, and answer every error in JSON."""
        if request.path not in _ANY_HOST and not self._is_ours(request):
            detail = "this Host is neither an IP address nor localhost; name it in ops.hosts"
            return error_page(HTTPStatus.MISDIRECTED_REQUEST, "host", detail)
        try:
            return await handler(request)
        except BadOrder as exc:
            return error_page(HTTPStatus.BAD_REQUEST, "bad_request", str(exc))
        except web.HTTPException as exc:
            if exc.status < HTTPStatus.BAD_REQUEST:
                raise
            response = error_page(exc.status, "bad_request", exc.reason)
            if "Allow" in exc.headers:
                response.headers["Allow"] = exc.headers["Allow"]
            return response

    def _is_ours(self, request: web.Request) -> bool:
        hosts = request.headers.getall("Host", [])
        # An absolute target (RFC 9112, 3.2.2) names the host in place of the header.
        named = request.raw_path.partition("://")
        if named[1] and not request.raw_path.startswith("/"):
            hosts.append(named[2].partition("/")[0])
        return bool(hosts) and all(self._rule.allows(host) for host in hosts)

    async def _metrics(self, _request: web.Request) -> web.Response:
        page = self._pages.metrics()
        body, content_type = await page if isinstance(page, Awaitable) else page
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _healthz(self, _request: web.Request) -> web.Response:
        """The loop runs, or this would not be answered."""
        return json_page({"healthy": True})

    async def _readyz(self, _request: web.Request) -> web.Response:
        reason, details = self._pages.not_ready(), self._pages.ready_details()
        if reason is None:
            return json_page({"ready": True, **details})
        page = {"ready": False, "reason": reason, **details}
        return json_page(page, HTTPStatus.SERVICE_UNAVAILABLE)

    async def _status(self, _request: web.Request) -> web.Response:
        page = self._pages.status()
        return json_page(await page if isinstance(page, Awaitable) else page)


def _bind_private(path: Path) -> socket.socket:
    """A socket file of this user alone; it replaces what a predecessor has left.

    Raises:
        OSError: it cannot be made.
    """
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX)
    try:
        bound.bind(str(path))
        path.chmod(_PRIVATE)
    except OSError:
        bound.close()
        raise
    return bound


def _server_log() -> logging.Logger:
    """The log of aiohttp, without a traceback for each request that is not HTTP."""
    log = logging.getLogger("gateway.ops.server")
    log.addFilter(_concerns_us)
    return log


def _concerns_us(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)
