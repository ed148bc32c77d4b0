"""Decides on a handshake: our endpoint, our protocol, room, and a credential that is believed."""

import asyncio
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from websockets.datastructures import Headers, MultipleValuesError
from websockets.exceptions import InvalidHandshake
from websockets.headers import parse_subprotocol
from websockets.http11 import Request

from gateway.admission.errors import CredentialError
from gateway.edge.connection import WebSocketConnection
from gateway.edge.device import DeviceContext, DeviceHandler
from gateway.edge.errors import Refusal
from gateway.session import frames

_BEARER: Final = "bearer "


class DeviceGate:
    """The gate of the device listener."""

    def __init__(self, context: DeviceContext, *, connections_max: int) -> None:
        """
        Args:
            context: shared by the handlers it makes.
            connections_max: connections served at once; more are told to come back.
        """
        self._context = context
        self._connections_max = connections_max
        self._connections: set[WebSocketConnection] = set()
        self.draining = False
        self.empty = asyncio.Event()
        """Set while there is no connection."""
        self.empty.set()

    def __len__(self) -> int:
        """Connections, admitted or on their way."""
        return len(self._connections)

    def arrived(self, connection: WebSocketConnection) -> None:
        self._connections.add(connection)
        self.empty.clear()

    def left(self, connection: WebSocketConnection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self.empty.set()

    def abort_all(self) -> None:
        """Drop every connection at once."""
        for connection in list(self._connections):
            connection.abort("stopped")

    def admit(self, request: Request, address: str) -> DeviceHandler:
        """Check in order of cost, so that what is not ours is refused for least.

        Raises:
            Refusal: with the status and error of the contract.
        """
        del address
        if urlsplit(request.path).path != frames.PATH:
            raise Refusal(HTTPStatus.NOT_FOUND, "not_found", detail=f"devices use {frames.PATH}")
        if request.method != "GET" or "Upgrade" not in request.headers:
            raise Refusal(HTTPStatus.UPGRADE_REQUIRED, "upgrade_required", detail="not a WebSocket")
        offered = _subprotocols(request.headers)
        if frames.SUBPROTOCOL not in offered:
            detail = f"offer the subprotocol {frames.SUBPROTOCOL}"
            raise Refusal(
                HTTPStatus.BAD_REQUEST, "bad_request", reason="subprotocol", detail=detail
            )
        if self.draining:
            raise self._come_back("draining")
        if len(self._connections) > self._connections_max:
            raise self._come_back("capacity")
        try:
            identity = self._context.verifier.verify(_token(request.headers, offered))
        except CredentialError as exc:
            raise Refusal(
                HTTPStatus.UNAUTHORIZED, "credential", reason=exc.reason, detail=str(exc)
            ) from None
        return DeviceHandler(self._context, identity)

    def _come_back(self, reason: str) -> Refusal:
        """At random over the time in which all of the fleet can be answered."""
        spread_ms = self._context.fleet.first_retry_ms
        retry_ms = 1_000 + self._context.rng.randrange(spread_ms + 1)
        return Refusal(
            HTTPStatus.SERVICE_UNAVAILABLE, "admission", reason=reason, retry_ms=retry_ms
        )


def _subprotocols(headers: Headers) -> list[str]:
    try:
        return [
            name
            for value in headers.get_all("Sec-WebSocket-Protocol")
            for name in parse_subprotocol(value)
        ]
    except InvalidHandshake:
        # A JWT is a token of RFC 9110, so a well-formed offer always parses.
        detail = "Sec-WebSocket-Protocol is malformed"
        raise Refusal(
            HTTPStatus.BAD_REQUEST, "bad_request", reason="subprotocol", detail=detail
        ) from None


def _token(headers: Headers, offered: list[str]) -> str:
    """The credential: of the Authorization header, else of the `bearer.` subprotocol.

    Raises:
        CredentialError: there is none, or several.
    """
    try:
        authorization = headers.get("Authorization")
    except MultipleValuesError:
        raise CredentialError("malformed", "several Authorization headers") from None
    if authorization is not None:
        if not authorization[: len(_BEARER)].lower() == _BEARER:
            raise CredentialError("malformed", "Authorization is not Bearer")
        return authorization[len(_BEARER) :].strip()
    prefix = frames.BEARER_SUBPROTOCOL_PREFIX
    tokens = [name[len(prefix) :] for name in offered if name.startswith(prefix)]
    if len(tokens) > 1:
        raise CredentialError("malformed", "several bearer subprotocols")
    return tokens[0] if tokens else ""
