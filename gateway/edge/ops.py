"""The operators' listener: metrics, health, readiness, status. Never exposed to devices."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from gateway.edge.errors import ListenError


@dataclass(frozen=True, slots=True)
class OpsSources:
    """Where the pages come from. Called on each request."""

    metrics: Callable[[], tuple[bytes, str]]
    """Body and content type of the Prometheus exposition."""
    not_ready: Callable[[], str | None]
    """Why no traffic should come here, or None."""
    status: Callable[[], dict[str, Any]]


class OpsListener:
    """`/metrics`, `/healthz`, `/readyz`, `/status` on a port of their own."""

    def __init__(self, sources: OpsSources) -> None:
        self._sources = sources
        application = web.Application()
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/status", self._status)
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


def _json(document: dict[str, Any], status: int = 200) -> web.Response:
    body = msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
    return web.Response(body=body, status=status, content_type="application/json")
