"""Asks a worker's operators' port, which is a socket file."""

from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson

from gateway.ops.access import OPERATOR_HEADER
from gateway.supervisor.errors import SupervisorError

ANSWER_S: Final = 3.0
"""Less than the command line waits for the supervisor's answer."""
_ORIGIN: Final = "http://localhost"


class WorkerSilent(SupervisorError):
    """A worker gives no answer: it is starting, gone or stuck."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Of a worker."""

    status: int
    document: dict[str, Any]

    @property
    def good(self) -> bool:
        return self.status < HTTPStatus.BAD_REQUEST


class WorkerClient:
    """Asks one worker, whichever process it is at the time."""

    def __init__(self, socket_file: Path) -> None:
        """
        Args:
            socket_file: where it answers.
        """
        self._socket_file = str(socket_file)
        self._http: aiohttp.ClientSession | None = None

    async def ask(self, path: str, order: bytes | None = None, who: str = "supervisor") -> Answer:
        """GET a page, or POST an order to it.

        Args:
            path: of the page.
            order: JSON; None for GET.
            who: the operator on whose behalf it is.

        Raises:
            WorkerSilent: there is no answer in time.
        """
        status, body = await self._request(path, order, {OPERATOR_HEADER: who})
        return Answer(status, orjson.loads(body))

    async def text(self, path: str) -> str:
        """A page as text.

        Raises:
            WorkerSilent: there is no answer in time.
        """
        _status, body = await self._request(path, None, {})
        return body.decode()

    async def close(self) -> None:
        """Close the connections to the process."""
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def _request(
        self, path: str, order: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        if order is not None:
            headers["Content-Type"] = "application/json"
        if self._http is None:
            # The connections of a process that ends are closed with it, so its successor gets new
            # ones.
            self._http = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(self._socket_file),
                timeout=aiohttp.ClientTimeout(total=ANSWER_S),
            )
        try:
            async with self._http.request(
                "GET" if order is None else "POST", _ORIGIN + path, data=order, headers=headers
            ) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, OSError) as exc:  # a timeout is an OSError
            raise WorkerSilent(f"{self._socket_file}: {exc or type(exc).__name__}") from exc
