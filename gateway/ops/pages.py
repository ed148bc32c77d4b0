"""JSON in and out of the operators' port, within bounds."""

import asyncio
from http import HTTPStatus
from typing import Any, Final

import orjson
from aiohttp import web

BODY_BYTES_MAX: Final = 4_096
BODY_TIMEOUT_S: Final = 5.0
ORDER: Final = web.RequestKey("order", bytes)
"""Where a request keeps its body, for the log."""

_JSON_OPTIONS: Final = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS


async def json_body(request: web.Request) -> bytes:
    """The JSON of a POST, within its bounds.

    Raises:
        web.HTTPException: it is no JSON, too large or too slow.
    """
    # No page of a browser can post JSON to another site without asking first (CORS).
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(reason="send application/json")
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            body = request[ORDER] = await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(reason="the body took too long") from None
    return body


def json_page(document: dict[str, Any], status: int = HTTPStatus.OK) -> web.Response:
    """A page of JSON, indented for people that read it in a terminal. NaN is `null`."""
    body = orjson.dumps(document, option=_JSON_OPTIONS)
    return web.Response(body=body, status=status, content_type="application/json")


def error_page(status: int, error: str, detail: str) -> web.Response:
    """What is wrong with a request."""
    return json_page({"error": error, "detail": detail}, status)
