"""A device that speaks frames by hand, over `websockets`' own asyncio client."""

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from gateway.app import Gateway
from support.gateways import token_for, url_of
from support.waiting import within


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

    async def greet(self, outbox: str = "box", oldest: int = 1) -> dict[str, Any]:
        await self.say({"hello": {"outbox": outbox, "oldest": oldest, "age_ms": 0}})
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
    async with connect(
        options.pop("url", url_of(gateway)),
        subprotocols=["tidegate.v1"],
        additional_headers={"Authorization": f"Bearer {token}"}
        | ({"Tidegate-Ticket": ticket} if ticket else {}),
        compression=options.pop("compression", None),
        proxy=None,
        **options,
    ) as connection:
        raw = RawDevice(connection)
        if greet:
            await raw.greet(outbox, oldest)
        yield raw
