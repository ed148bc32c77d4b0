"""What stands before every handler of the operators' port: security headers, access, and a log.

- A route with a role is judged by `access.py`, and refused if a page of another site sends the
  request. A browser marks such a request itself (`Sec-Fetch-Site`, `Origin`); no CORS header is
  ever sent, so no other site reads an answer.
- Every order is logged with who gave it, what it was and what came of it. Refusals are logged too,
  at most one line a second.
"""

import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import orjson
import structlog
from aiohttp import web

from gateway.ops.access import Judge, Role
from gateway.ops.errors import BadOrder, Denied
from gateway.ops.pages import ORDER, error_page

_log = structlog.get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

LOGGED_CHARS_MAX: Final = 512
"""Of an order, and of the answer to it."""
_LOG_EVERY_S: Final = 1.0
_SAME_SITE: Final = ("same-origin", "none")
"""`none`: a person has entered the address."""

SECURITY_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True, slots=True)
class Route:
    """One page or order."""

    method: str
    path: str
    handler: Handler
    role: Role | None = None
    """What a request needs; None for pages that name no device and change nothing."""


async def add_security_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """For the signal `on_response_prepare`. A page that sets one of the headers keeps its own."""
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)


class Protection:
    """Lets requests through to the handlers of routes, or refuses them."""

    def __init__(
        self,
        access: Judge,
        *,
        on_denied: Callable[[str], None] = lambda _error: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            access: judges who may do what.
            on_denied: counts a refusal, by its error.
            clock: monotonic seconds.
        """
        self._access = access
        self._on_denied = on_denied
        self._clock = clock
        self._log_from = -math.inf
        self._not_logged = 0

    def guard(self, route: Route) -> Handler:
        """The handler of a route, behind what its role demands."""
        role, handler = route.role, route.handler
        if role is None:
            return handler

        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                who = self._judge(request, role)
            except Denied as denied:
                self._denied(request, denied)
                return _denial(denied)
            if role is not Role.OPERATE:
                return await handler(request)
            return await _logged(request, handler, who)

        return guarded

    def _judge(self, request: web.Request, role: Role) -> str:
        """
        Raises:
            Denied: another site sends it, or who asks may not do this.
        """
        headers = request.headers
        site = headers.get("Sec-Fetch-Site", "none")
        origin = headers.get("Origin")
        if site not in _SAME_SITE or (origin is not None and not _is_own(origin, request)):
            detail = "a page of another site may not use this port"
            raise Denied(HTTPStatus.FORBIDDEN, "cross_site", detail)
        if len(headers.getall("Authorization", [])) > 1:
            raise Denied(HTTPStatus.UNAUTHORIZED, "token_wrong", "several Authorization headers")
        return self._access.judge(role, headers, request.remote or "")

    def _denied(self, request: web.Request, denied: Denied) -> None:
        self._on_denied(denied.error)
        now = self._clock()
        if now < self._log_from:
            self._not_logged += 1
            return
        _log.warning(
            "operator_denied",
            error=denied.error,
            who=denied.who,
            address=request.remote,
            path=request.path[:LOGGED_CHARS_MAX],
            not_logged=self._not_logged,
        )
        self._log_from, self._not_logged = now + _LOG_EVERY_S, 0


def _is_own(origin: str, request: web.Request) -> bool:
    """Whether `origin` is the page of this port. Its scheme may differ: a proxy may end TLS."""
    return origin.partition("://")[2].lower() == request.headers.get("Host", "").lower()


WHO: Final = web.RequestKey("who", str)
"""Who gave an order: the name of a token, or `loopback`."""


async def _logged(request: web.Request, handler: Handler, who: str) -> web.StreamResponse:
    """Carry out an order, and log who gave it and what came of it, also if it fails."""
    request[WHO] = who
    level, said = logging.WARNING, "failed"
    try:
        response = await handler(request)
        level, said = logging.INFO, _text(getattr(response, "body", None))
    except BadOrder as exc:
        said = str(exc)
        raise
    except web.HTTPException as exc:
        said = exc.reason
        raise
    finally:
        _log.log(
            level,
            "operator_order",
            who=who,
            address=request.remote,
            what=request.path,
            order=_text(request.get(ORDER)),
            outcome=said[:LOGGED_CHARS_MAX],
        )
    return response


def _text(body: object) -> str:
    """JSON on one line, if it is JSON; control characters are escaped by the log."""
    if not isinstance(body, bytes):
        return ""
    try:
        return orjson.dumps(orjson.loads(body)).decode()[:LOGGED_CHARS_MAX]
    except orjson.JSONDecodeError:
        return body.decode(errors="replace")[:LOGGED_CHARS_MAX]


def _denial(denied: Denied) -> web.Response:
    response = error_page(denied.status, denied.error, str(denied))
    if denied.status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = 'Bearer realm="tidegate operators"'
    if denied.retry_s:
        response.headers["Retry-After"] = str(math.ceil(denied.retry_s))
    return response
