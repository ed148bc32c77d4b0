"""The requests of the operators' commands to a gateway's ops port.

The wait for each answer is bounded. A port that cannot be reached is an error with its reason. The
token comes from a file or from the environment, never from the command line, which every user of
the machine can read.
"""

import asyncio
import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson

from gateway.errors import GatewayError

ANSWER_S: Final = 4.0
TOKEN_VARIABLE: Final = "TIDEGATE_OPS_TOKEN"  # noqa: S105  # the name of a variable
TOKEN_FILE_VARIABLE: Final = "TIDEGATE_OPS_TOKEN_FILE"  # noqa: S105  # likewise
_POLL_S: Final = 0.5


class OperateError(GatewayError):
    """The ops port cannot be asked, or refuses. The message names it and says why."""


class NobodyListens(OperateError):
    """No connection to the ops port can be made."""


def token_of(file: Path | None, environment: Mapping[str, str] = os.environ) -> str:
    """The token of this operator; empty if there is none.

    Args:
        file: named on the command line; else the environment names the file, or has the token.
        environment: variables.

    Raises:
        OperateError: the file cannot be read, or holds no single token.
    """
    if file is None and TOKEN_FILE_VARIABLE in environment:
        file = Path(environment[TOKEN_FILE_VARIABLE])
    if file is None:
        return environment.get(TOKEN_VARIABLE, "").strip()
    try:
        words = file.read_text().split()
    except (OSError, UnicodeDecodeError) as exc:
        raise OperateError(f"token file {file}: {exc}") from None
    if len(words) != 1:
        raise OperateError(f"token file {file}: must hold one token and nothing else")
    return words[0]


def trust(ca_file: Path | None) -> ssl.SSLContext:
    """Whose certificates are believed: those of the system, or of a file.

    Raises:
        OperateError: the file holds no certificate.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as exc:
        raise OperateError(f"CA file {ca_file}: {exc}") from None


@dataclass(frozen=True, slots=True)
class OpsClient:
    """Asks one ops port."""

    url: str
    """Base of the port, without a slash at the end."""
    token: str = ""
    tls: ssl.SSLContext | None = None

    async def ask(self, path: str, document: dict[str, Any] | None = None) -> dict[str, Any]:
        """POST `document` to a page, or GET it without one.

        Raises:
            OperateError: no answer, no answer of a gateway, or a refusal.
        """
        url = self.url + path
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        method = "GET" if document is None else "POST"
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=headers) as http,
                http.request(
                    method, url, json=document, allow_redirects=False, ssl=self.tls or True
                ) as response,
            ):
                status = response.status
                answer = await response.json(loads=orjson.loads)
        except TimeoutError:
            raise OperateError(f"{url}: no answer in {ANSWER_S:g} s") from None
        except aiohttp.ContentTypeError:
            text = f"{url}: HTTP {status} without JSON: no gateway's ops port"
            raise OperateError(text) from None
        except aiohttp.InvalidURL:
            text = f"{url}: not a URL; it must be like http://127.0.0.1:9090"
            raise OperateError(text) from None
        except aiohttp.ClientConnectorCertificateError as exc:
            raise OperateError(f"{url}: {exc.certificate_error}; see --ca-file") from None
        except aiohttp.ClientConnectorError as exc:
            raise NobodyListens(f"{url}: cannot connect: {exc.os_error}") from None
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise OperateError(f"{url}: {exc or type(exc).__name__}") from None
        return _checked(url, status, answer)


def _checked(url: str, status: int, answer: Any) -> dict[str, Any]:
    """
    Raises:
        OperateError: the answer is a refusal, or not of a gateway.
    """
    if not isinstance(answer, dict):
        raise OperateError(f"{url}: no gateway's ops port")
    if status >= HTTPStatus.BAD_REQUEST:
        hint = ""
        if status == HTTPStatus.UNAUTHORIZED:
            hint = f" (see --token-file, {TOKEN_FILE_VARIABLE} and {TOKEN_VARIABLE})"
        raise OperateError(f"{url}: HTTP {status}: {answer.get('detail', answer)}{hint}")
    return answer


async def drain(client: OpsClient, *, now: bool, say: Callable[[str], None]) -> None:
    """Stop a gateway, and wait until it has stopped.

    Args:
        client: of its ops port.
        now: do not give the devices slots elsewhere first.
        say: takes each line for the operator.

    Raises:
        OperateError: it cannot be asked.
    """
    await client.ask("/drain", {"now": True} if now else {})
    shown = ""
    while True:
        try:
            line = f"{(await client.ask('/status'))['devices']} devices left"
        except NobodyListens:
            say("stopped")
            return
        except OperateError as exc:
            line = str(exc)
        if line != shown:
            say(line)
            shown = line
        await asyncio.sleep(_POLL_S)


async def restart_workers(client: OpsClient, *, say: Callable[[str], None]) -> bool:
    """Replace each worker of a gateway in turn, and wait until that has ended.

    Args:
        client: of its ops port.
        say: takes each line for the operator.

    Returns:
        Whether every worker was replaced.

    Raises:
        OperateError: it cannot be asked, or has no workers.
    """
    before = {part["worker"]: part["pid"] for part in await _workers(client)}
    if not before:
        raise OperateError(f"{client.url}: this gateway is one process; see server.workers")
    await client.ask("/restart-workers", {})
    replaced: set[int] = set()
    while True:
        page = await client.ask("/status")
        for part in page["workers"]:
            worker, serves = part["worker"], part.get("state") == "serving"
            if worker not in replaced and part["pid"] != before[worker] and serves:
                replaced.add(worker)
                say(f"worker {worker} replaced: process {part['pid']}")
        if not page["rolling_restart"]:
            return len(replaced) == len(before)
        await asyncio.sleep(_POLL_S)


async def _workers(client: OpsClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.ask("/status")).get("workers", [])
    return found
