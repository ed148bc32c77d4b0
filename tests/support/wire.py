"""A device that speaks frames by hand, over `websockets`' own asyncio client."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from gateway.app import Gateway
from support.gateways import client_context, token_for, url_of, way_of
from support.waiting import within
from tidegate.wire.frames import PATH


class RawDevice:
    """One connection of a device; says and hears JSON."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.welcome: dict[str, Any] = {}

    async def say(self, frame: Any) -> None:
        text = frame if isinstance(frame, str) else json.dumps(frame)
        await self.connection.send(text)

    async def hear(self) -> dict[str, Any]:
        frame: dict[str, Any] = json.loads(await within(self.connection.recv()))
        return frame

    async def hear_named(self, name: str) -> Any:
        """The next frame called `name`; others are passed over."""
        while True:
            frame = await self.hear()
            if name in frame:
                return frame[name]

    async def hear_ack(self, seq: int) -> None:
        while await self.hear_named("ack") < seq:
            pass

    async def greet(self, outbox: str = "box", oldest: int = 1, **more: Any) -> dict[str, Any]:
        await self.say({"hello": {"outbox": outbox, "oldest": oldest, "age_ms": 0, **more}})
        self.welcome = await self.hear_named("welcome")
        return self.welcome

    async def closed(self) -> tuple[int, dict[str, Any]]:
        """Code and JSON reason of the close that must come."""
        try:
            while True:
                await within(self.connection.recv())
        except ConnectionClosed as exc:
            received = exc.rcvd
        assert received is not None, "the connection was cut without a close frame"
        assert len(received.reason.encode()) <= 123
        return received.code, json.loads(received.reason) if received.reason else {}


def message(seq: int, message_type: str = "battery.low", **more: Any) -> dict[str, Any]:
    return {"seq": seq, "type": message_type, "data": {"n": seq}, **more}


@contextlib.asynccontextmanager
async def raw_device(
    gateway: Gateway,
    device: str = "veh-1",
    *,
    greet: bool = True,
    outbox: str = "box",
    oldest: int = 1,
    token: str | None = None,
    ticket: str = "",
    **options: Any,
) -> AsyncIterator[RawDevice]:
    token = token if token is not None else token_for(gateway, device)
    headers = {"Tidegate-Ticket": ticket} if ticket else {}
    subprotocols = ["tidegate.v1"]
    if way_of(gateway).subprotocol:
        subprotocols.append(f"bearer.{token}")
    else:
        headers["Authorization"] = f"Bearer {token}"
    async with connect(
        options.pop("url", url_of(gateway)),
        subprotocols=subprotocols,
        additional_headers=headers,
        compression=options.pop("compression", None),
        proxy=None,
        ssl=options.pop("ssl", client_context(gateway)),
        **options,
    ) as connection:
        raw = RawDevice(connection)
        if greet:
            await raw.greet(outbox, oldest)
        yield raw


def knock_bytes(gateway: Gateway, device: str, *, ticket: str = "", path: str = PATH) -> bytes:
    """The handshake of a device, in the gateway's way."""
    token = token_for(gateway, device)
    if way_of(gateway).subprotocol:
        credential = f"Sec-WebSocket-Protocol: tidegate.v1, bearer.{token}\r\n"
    else:
        credential = f"Sec-WebSocket-Protocol: tidegate.v1\r\nAuthorization: Bearer {token}\r\n"
    shown = f"Tidegate-Ticket: {ticket}\r\n" if ticket else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"{credential}{shown}\r\n"
    ).encode("latin-1")


@contextlib.asynccontextmanager
async def raw_connection(
    gateway: Gateway,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to the gateway, over TLS if that is its way; cut at the end."""
    context = client_context(gateway)
    name = "localhost" if context is not None else None
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", gateway.port, ssl=context, server_hostname=name
    )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
