"""What operators can order a gateway to do: drain, revoke, disconnect, steer."""

import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, Protocol

from aiohttp import web

from gateway.ops.access import Role
from gateway.ops.orders import (
    Subject,
    check_names,
    parse_disconnect,
    parse_drain,
    parse_nothing,
    parse_revoke,
    parse_steer,
    parse_unrevoke,
)
from gateway.ops.pages import json_body, json_page
from gateway.ops.protection import WHO, Route

REVOCATIONS_SHOWN_MAX: Final = 10_000
"""Most revocations that `/revocations` shows; the answer also says how many there are."""


class Revocations(Protocol):
    """The devices and credentials that are revoked."""

    async def revoke(self, subject: Subject, until: float) -> str:
        """Revoke until then (Unix time in seconds). Says how far it went: `node` or `fleet`."""

    async def unrevoke(self, subject: Subject) -> str:
        """Undo it. Says how far it went."""

    def in_force(self) -> list[tuple[Subject, float]]:
        """All there are, each with its end (Unix time in seconds)."""


class Devices(Protocol):
    """The devices, wherever they are connected."""

    async def find(self, tenant: str, device: str) -> dict[str, Any]:
        """What is known of a device: where it is, or why it is not in."""

    async def disconnect(self, tenant: str, device: str) -> bool:
        """End the session of a device, which may connect again. False if it has none."""


class Steering(Protocol):
    """The settings that can be changed for a time, on all nodes."""

    async def steer(self, values: Mapping[str, float | str], for_s: float, by: str) -> str:
        """Change them. Says how far it went, as `Revocations.revoke`."""

    async def unsteer(self, by: str) -> str:
        """End all such changes. Says how far it went."""


class GatewayOrders:
    """The routes of a gateway's operators' port, besides those of every process."""

    def __init__(
        self,
        *,
        drain: Callable[[bool], None],
        revocations: Revocations,
        devices: Devices,
        steering: Steering,
        is_token: Callable[[str], bool],
    ) -> None:
        """
        Args:
            drain: sends every device elsewhere, then stops; if True, stops at once. May be called
                again.
            revocations: the devices and credentials that are revoked.
            devices: those that can be looked up and disconnected.
            steering: what can be changed for a time.
            is_token: the grammar of tenants and devices.
        """
        self._drain_gateway = drain
        self._known = revocations
        self._devices = devices
        self._steering = steering
        self._is_token = is_token

    def routes(self) -> list[Route]:
        """For the listener."""
        return [
            Route("GET", "/devices/{tenant}/{device}", self._device, Role.READ),
            Route("GET", "/revocations", self._revocations, Role.READ),
            Route("POST", "/drain", self._drain, Role.OPERATE),
            Route("POST", "/revoke", self._revoke, Role.OPERATE),
            Route("POST", "/unrevoke", self._unrevoke, Role.OPERATE),
            Route("POST", "/disconnect", self._disconnect, Role.OPERATE),
            Route("POST", "/steer", self._steer, Role.OPERATE),
            Route("POST", "/unsteer", self._unsteer, Role.OPERATE),
        ]

    async def _drain(self, request: web.Request) -> web.Response:
        now = parse_drain(await json_body(request))
        self._drain_gateway(now)
        return json_page({"draining": True, "now": now}, HTTPStatus.ACCEPTED)

    async def _revoke(self, request: web.Request) -> web.Response:
        subject, until = parse_revoke(
            await json_body(request), now=time.time(), is_token=self._is_token
        )
        return json_page({"revoked": await self._known.revoke(subject, until)})

    async def _unrevoke(self, request: web.Request) -> web.Response:
        subject = parse_unrevoke(await json_body(request), is_token=self._is_token)
        revocations = self._known
        known = any(subject == each for each, _until in revocations.in_force())
        return json_page({"unrevoked": await revocations.unrevoke(subject), "was_revoked": known})

    async def _disconnect(self, request: web.Request) -> web.Response:
        tenant, device = parse_disconnect(await json_body(request), is_token=self._is_token)
        return json_page({"disconnected": await self._devices.disconnect(tenant, device)})

    async def _device(self, request: web.Request) -> web.Response:
        tenant, device = request.match_info["tenant"], request.match_info["device"]
        check_names(tenant, device, self._is_token)
        return json_page(await self._devices.find(tenant, device))

    async def _steer(self, request: web.Request) -> web.Response:
        values, for_s = parse_steer(await json_body(request))
        reach = await self._steering.steer(values, for_s, request[WHO])
        return json_page({"steered": reach, "for_s": for_s, **values})

    async def _unsteer(self, request: web.Request) -> web.Response:
        parse_nothing(await json_body(request))
        return json_page({"unsteered": await self._steering.unsteer(request[WHO])})

    async def _revocations(self, _request: web.Request) -> web.Response:
        found = self._known.in_force()
        found.sort(key=lambda entry: (entry[1], entry[0].tenant, entry[0].device, entry[0].jti))
        return json_page(
            {
                "total": len(found),
                "revocations": [_shown(*entry) for entry in found[:REVOCATIONS_SHOWN_MAX]],
            }
        )


def _shown(subject: Subject, until: float) -> dict[str, Any]:
    if subject.jti:
        return {"jti": subject.jti, "until": until}
    return {"tenant": subject.tenant, "device": subject.device, "until": until}
