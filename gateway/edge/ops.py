"""The operators' listener: metrics, health, readiness, status, drain, revoke. Never for devices."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from gateway.admission.revocation import Revocation
from gateway.edge.errors import ListenError


@dataclass(frozen=True, slots=True)
class OpsSources:
    """Where the pages come from. Called on each request."""

    metrics: Callable[[], tuple[bytes, str]]
    """Body and content type of the Prometheus exposition."""
    not_ready: Callable[[], str | None]
    """Why no traffic should come here, or None."""
    status: Callable[[], dict[str, Any]]
    drain: Callable[[], None]
    """Send every device elsewhere, then stop."""
    revoke: Callable[[Revocation], Awaitable[str]]
    """Revoke; says how far it went."""


class _RevokeRequest(msgspec.Struct, forbid_unknown_fields=True):
    until: float
    jti: str = ""
    tenant: str = ""
    device: str = ""


class OpsListener:
    """`/metrics`, `/healthz`, `/readyz`, `/status`, `/drain`, `/revoke` on a port of their own."""

    def __init__(self, sources: OpsSources) -> None:
        self._sources = sources
        application = web.Application()
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/status", self._status)
        application.router.add_post("/drain", self._drain)
        application.router.add_post("/revoke", self._revoke)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)

    async def start(self, host: str, port: int) -> int:
        """Bind and serve.

        Returns:
            The port, chosen by the system if `port` is 0.

        Raises:
            ListenError: the address cannot be bound.
        """
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        try:
            await site.start()
        except OSError as exc:
            raise ListenError(host, port, exc) from exc
        bound: int = self._runner.addresses[0][1]
        return bound

    async def stop(self) -> None:
        await self._runner.cleanup()

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
        return _json({"ready": False, "reason": reason}, status=503)

    async def _status(self, _request: web.Request) -> web.Response:
        return _json(self._sources.status())

    async def _drain(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            return _not_json()
        self._sources.drain()
        return _json({"draining": True}, status=202)

    async def _revoke(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            return _not_json()
        try:
            wanted = msgspec.json.decode(await request.read(), type=_RevokeRequest)
            revocation = Revocation(
                wanted.until, jti=wanted.jti, tenant=wanted.tenant, device=wanted.device
            )
        except (msgspec.DecodeError, ValueError) as exc:
            return _json({"error": "bad_request", "detail": str(exc)}, status=400)
        return _json({"revoked": await self._sources.revoke(revocation)})


def _not_json() -> web.Response:
    """No page of a browser can post JSON here without asking first (CORS): a cheap guard."""
    return _json({"error": "bad_request", "detail": "send application/json"}, status=415)


def _json(document: dict[str, Any], status: int = 200) -> web.Response:
    body = msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
    return web.Response(body=body, status=status, content_type="application/json")
