"""The requests of `tidegate drain` and `tidegate revoke` to a gateway's ops port.

The wait for each answer is bounded. A port that cannot be reached is an error with its reason.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

import aiohttp
import orjson

from gateway.errors import GatewayError

ANSWER_S: Final = 4.0
_POLL_S: Final = 0.5


class OperateError(GatewayError):
    """The ops port cannot be asked, or refuses. The message names it and says why."""


class NobodyListens(OperateError):
    """No connection to the ops port can be made."""


async def ask(url: str, document: dict[str, Any] | None = None) -> dict[str, Any]:
    """POST `document` to `url`, or GET it without one.

    Raises:
        OperateError: no answer, no answer of a gateway, or a refusal.
    """
    timeout = aiohttp.ClientTimeout(total=ANSWER_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as http,
            http.request(
                "GET" if document is None else "POST", url, json=document, allow_redirects=False
            ) as response,
        ):
            status = response.status
            answer = await response.json(loads=orjson.loads)
    except TimeoutError:
        raise OperateError(f"{url}: no answer in {ANSWER_S:g} s") from None
    except aiohttp.ContentTypeError:
        raise OperateError(f"{url}: HTTP {status} without JSON: no gateway's ops port") from None
    except aiohttp.InvalidURL:
        raise OperateError(f"{url}: not a URL; it must be like http://127.0.0.1:9090") from None
    except aiohttp.ClientConnectorError as exc:
        raise NobodyListens(f"{url}: cannot connect: {exc.os_error}") from None
    except (aiohttp.ClientError, OSError, ValueError) as exc:
        raise OperateError(f"{url}: {exc or type(exc).__name__}") from None
    if not isinstance(answer, dict):
        raise OperateError(f"{url}: no gateway's ops port")
    if status >= HTTPStatus.BAD_REQUEST:
        raise OperateError(f"{url}: HTTP {status}: {answer.get('detail', answer)}")
    return answer


async def drain(ops_url: str, *, now: bool, say: Callable[[str], None]) -> None:
    """Stop a gateway, and wait until it has stopped.

    Args:
        ops_url: base of the ops port.
        now: do not give the devices slots elsewhere first.
        say: takes each line for the operator.

    Raises:
        OperateError: it cannot be asked.
    """
    await ask(f"{ops_url}/drain", {"now": True} if now else {})
    shown = ""
    while True:
        try:
            line = f"{(await ask(f'{ops_url}/status'))['devices']} devices left"
        except NobodyListens:
            say("stopped")
            return
        except OperateError as exc:
            line = str(exc)
        if line != shown:
            say(line)
            shown = line
        await asyncio.sleep(_POLL_S)
