"""The operators' listener: metrics, health, status, drain, revocations. Never for devices.

Its rules:

- `/metrics`, `/healthz` and `/readyz` answer whatever `Host` they are asked for, since probes send
  the address of a pod. All other pages answer to an IP literal, to `localhost` and to the names of
  `ops.hosts` only (`hosts.py` says why).
- Whatever changes something is a POST of JSON. A page on another site cannot send that without the
  consent that this port never gives (CORS).
- Every body, head, connection and wait is bounded (`guard.py`).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Protocol

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.ops.errors import BadOrder, OpsListenError
from gateway.ops.guard import ConnectionGuard
from gateway.ops.hosts import HostRule
from gateway.ops.orders import Subject, parse_drain, parse_revoke, parse_unrevoke

BODY_BYTES_MAX: Final = 4_096
BODY_TIMEOUT_S: Final = 5.0
HEADERS_MAX: Final = 64
HEADER_BYTES_MAX: Final = 4_096
REVOCATIONS_SHOWN_MAX: Final = 10_000
"""Of `/revocations`; the answer says how many there are."""

_KEEPALIVE_S: Final = 75.0
"""Longer than the usual interval of a scrape, so that a connection is kept for the next."""
_LINGER_S: Final = 1.0
_ANY_HOST: Final = frozenset({"/metrics", "/healthz", "/readyz"})

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Revocations(Protocol):
    """Who is let in no more."""

    async def revoke(self, subject: Subject, until: float) -> str:
        """Revoke until then (Unix time in seconds). Says how far it went: `node` or `fleet`."""

    async def unrevoke(self, subject: Subject) -> str:
        """Undo it. Says how far it went."""

    def in_force(self) -> list[tuple[Subject, float]]:
        """All there are, each with its end (Unix time in seconds)."""


@dataclass(frozen=True, slots=True)
class OpsSources:
    """Where the pages come from. Called on each request."""

    metrics: Callable[[], tuple[bytes, str]]
    """Body and content type of the Prometheus exposition."""
    not_ready: Callable[[], str | None]
    """Why no traffic should come here, or None."""
    status: Callable[[], dict[str, Any]]
    drain: Callable[[bool], None]
    """Send every device elsewhere, then stop; if True, stop at once. May be called again."""
    revocations: Revocations
    is_token: Callable[[str], bool]
    """The grammar of tenants and devices."""


class OpsListener:
    """The pages, on a port of their own."""

    def __init__(self, sources: OpsSources, *, hosts: Iterable[str] = ()) -> None:
        """
        Args:
            sources: of the pages.
            hosts: names that are a good `Host`, besides IP literals and `localhost`.
        """
        self._sources = sources
        self._rule = HostRule(hosts)
        self._server: asyncio.Server | None = None
        application = web.Application(middlewares=[self._guarded], client_max_size=BODY_BYTES_MAX)
        router = application.router
        router.add_get("/metrics", self._metrics)
        router.add_get("/healthz", self._healthz)
        router.add_get("/readyz", self._readyz)
        router.add_get("/status", self._status)
        router.add_get("/revocations", self._revocations)
        router.add_post("/drain", self._drain)
        router.add_post("/revoke", self._revoke)
        router.add_post("/unrevoke", self._unrevoke)
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
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        loop = asyncio.get_running_loop()
        guard = ConnectionGuard(server, loop=loop)
        try:
            self._server = await loop.create_server(guard.connect, host, port, reuse_address=True)
        except OSError as exc:
            raise OpsListenError(host, port, exc) from exc
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """End it and its connections."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()

    @web.middleware
    async def _guarded(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Refuse a foreign `Host`; say whatever is wrong in JSON."""
        if request.path not in _ANY_HOST and not self._is_ours(request):
            detail = "this Host is neither an IP address nor localhost; name it in ops.hosts"
            return _error(HTTPStatus.MISDIRECTED_REQUEST, "host", detail)
        try:
            return await handler(request)
        except BadOrder as exc:
            return _error(HTTPStatus.BAD_REQUEST, "bad_request", str(exc))
        except web.HTTPException as exc:
            if exc.status < HTTPStatus.BAD_REQUEST:
                raise
            response = _error(exc.status, "bad_request", exc.reason)
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
        body, content_type = self._sources.metrics()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _healthz(self, _request: web.Request) -> web.Response:
        """The loop runs, or this would not be answered."""
        return _json({"healthy": True})

    async def _readyz(self, _request: web.Request) -> web.Response:
        reason = self._sources.not_ready()
        if reason is None:
            return _json({"ready": True})
        return _json({"ready": False, "reason": reason}, HTTPStatus.SERVICE_UNAVAILABLE)

    async def _status(self, _request: web.Request) -> web.Response:
        return _json(self._sources.status())

    async def _drain(self, request: web.Request) -> web.Response:
        now = parse_drain(await _body(request))
        self._sources.drain(now)
        return _json({"draining": True, "now": now}, HTTPStatus.ACCEPTED)

    async def _revoke(self, request: web.Request) -> web.Response:
        subject, until = parse_revoke(
            await _body(request), now=time.time(), is_token=self._sources.is_token
        )
        return _json({"revoked": await self._sources.revocations.revoke(subject, until)})

    async def _unrevoke(self, request: web.Request) -> web.Response:
        subject = parse_unrevoke(await _body(request), is_token=self._sources.is_token)
        revocations = self._sources.revocations
        known = any(subject == each for each, _until in revocations.in_force())
        return _json({"unrevoked": await revocations.unrevoke(subject), "was_revoked": known})

    async def _revocations(self, _request: web.Request) -> web.Response:
        found = self._sources.revocations.in_force()
        found.sort(key=lambda entry: (entry[1], entry[0].tenant, entry[0].device, entry[0].jti))
        return _json(
            {
                "total": len(found),
                "revocations": [_shown(*entry) for entry in found[:REVOCATIONS_SHOWN_MAX]],
            }
        )


async def _body(request: web.Request) -> bytes:
    """The JSON of a POST, within its bounds.

    Raises:
        web.HTTPException: it is no JSON, too large or too slow.
    """
    # No page of a browser can post JSON to another site without asking first (CORS).
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(reason="send application/json")
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(reason="the body took too long") from None


def _shown(subject: Subject, until: float) -> dict[str, Any]:
    if subject.jti:
        return {"jti": subject.jti, "until": until}
    return {"tenant": subject.tenant, "device": subject.device, "until": until}


def _error(status: int, error: str, detail: str) -> web.Response:
    return _json({"error": error, "detail": detail}, status)


def _json(document: dict[str, Any], status: int = HTTPStatus.OK) -> web.Response:
    body = msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
    return web.Response(body=body, status=status, content_type="application/json")


def _server_log() -> logging.Logger:
    """Aiohttp's log, without a traceback for each request that is no HTTP."""
    log = logging.getLogger("gateway.ops.server")
    log.addFilter(_concerns_us)
    return log


def _concerns_us(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)
