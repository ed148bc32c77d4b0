"""What operators can order a gateway of several workers to do: the orders of one gateway, and more.

Whatever changes something goes to every worker, so that it is in force at once also while Redis is
away. The answers are put together (`answers.py`).
"""

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from aiohttp import web

from gateway.ops.access import Role
from gateway.ops.orders import parse_drain, parse_nothing
from gateway.ops.pages import error_page, json_body, json_page
from gateway.ops.protection import WHO, Route
from gateway.supervisor import answers
from gateway.supervisor.pages import WorkerPages
from gateway.supervisor.worker_client import Answer

Merge = Callable[[Sequence[dict[str, Any]]], dict[str, Any]]


class SupervisorOrders:
    """The routes of the operators' port, besides those of every process."""

    def __init__(
        self,
        pages: WorkerPages,
        *,
        drain: Callable[[bool], None],
        restart_rolling: Callable[[], bool],
    ) -> None:
        """
        Args:
            pages: asks the workers.
            drain: drains all workers, then stops; if True, stops at once.
            restart_rolling: replaces each worker in turn; False if that goes on already.
        """
        self._pages = pages
        self._drain_all = drain
        self._restart_rolling = restart_rolling

    def routes(self) -> list[Route]:
        """For the listener."""
        operate = Role.OPERATE
        return [
            Route("GET", "/devices/{tenant}/{device}", self._device, Role.READ),
            Route("GET", "/revocations", self._revocations, Role.READ),
            Route("POST", "/drain", self._drain, operate),
            Route("POST", "/restart-workers", self._restart, operate),
            Route("POST", "/revoke", self._reaching("revoked"), operate),
            Route("POST", "/unrevoke", self._reaching("unrevoked"), operate),
            Route("POST", "/steer", self._reaching("steered"), operate),
            Route("POST", "/unsteer", self._reaching("unsteered"), operate),
            Route("POST", "/disconnect", self._disconnect, operate),
        ]

    async def _drain(self, request: web.Request) -> web.Response:
        now = parse_drain(await json_body(request))
        self._drain_all(now)
        return json_page({"draining": True, "now": now}, HTTPStatus.ACCEPTED)

    async def _restart(self, request: web.Request) -> web.Response:
        parse_nothing(await json_body(request))
        if not self._restart_rolling():
            detail = "a rolling restart goes on already; /status says how far it is"
            return error_page(HTTPStatus.CONFLICT, "restarting", detail)
        return json_page({"restarting": True}, HTTPStatus.ACCEPTED)

    def _reaching(self, name: str) -> Callable[[web.Request], Any]:
        """The handler of an order whose answer says in `name` how far it went."""

        async def order(request: web.Request) -> web.Response:
            return await self._order(request, lambda found: answers.reached(name, found))

        return order

    async def _disconnect(self, request: web.Request) -> web.Response:
        return await self._order(request, answers.disconnected)

    async def _order(self, request: web.Request, merge: Merge) -> web.Response:
        body = await json_body(request)
        return _one(await self._pages.answers(request.path, body, request[WHO]), merge)

    async def _device(self, request: web.Request) -> web.Response:
        names = (request.match_info["tenant"], request.match_info["device"])
        path = "/devices/" + "/".join(quote(name, safe="") for name in names)
        return _one(await self._pages.answers(path), answers.looked_up)

    async def _revocations(self, _request: web.Request) -> web.Response:
        return _one(await self._pages.answers("/revocations"), lambda found: found[0])


def _one(found: Sequence[Answer], merge: Merge) -> web.Response:
    """One answer: what the workers say together, or what is wrong with the request."""
    good = [answer.document for answer in found if answer.good]
    if good:
        return json_page(merge(good))
    if found:
        return json_page(found[0].document, found[0].status)
    detail = "no worker answers; see /status"
    return error_page(HTTPStatus.SERVICE_UNAVAILABLE, "no_worker", detail)
