"""Dead letters of a test, and what sends them again."""

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from gateway.consumers.letters.redrive import Redrive
from gateway.events.dead_letters import Selection
from gateway.events.redriving import Check, Patch
from gateway.stream.link.client import LinkClient
from gateway.stream.link.dialing import NatsAddress, connect_once
from gateway.stream.reading.reader import OneConnection
from support.servers import NatsServer


@asynccontextmanager
async def connected(server: NatsServer) -> AsyncIterator[LinkClient]:
    client = await connect_once(NatsAddress((server.url,)), name="test")
    yield client
    await client.close()


async def bury(
    server: NatsServer,
    seqs: Iterable[int],
    device: str = "veh-1",
    error: str = "schema",
    soc: int = 170,
) -> None:
    """Letters as the gateway writes them."""
    async with connected(server) as client:
        for seq in seqs:
            message = {"seq": seq, "type": "battery.low", "data": {"soc": soc}}
            headers = {
                "Nats-Msg-Id": f"default:{device}:o1:{seq}",
                "ce-time": "2026-11-25T10:00:00Z",
                "Tidegate-Outbox": "o1",
                "Tidegate-Seq": str(seq),
                "Tidegate-Error": error,
                "Tidegate-Detail": "data.soc: 170 is greater than the maximum of 100",
            }
            await client.jetstream().publish(
                f"deadletters.default.{device}", json.dumps(message).encode(), headers=headers
            )


def _fits(_type: str, _data: bytes) -> None:
    return None


def work(
    client: LinkClient,
    check: Check = _fits,
    patch: Patch | None = None,
    owner: str = "me",
    **wanted: Any,
) -> Redrive:
    return Redrive(
        OneConnection(client),
        client,
        Selection(**wanted),
        patch=patch,
        check=check,
        rate_per_s=None,
        owner=owner,
    )
