"""The stream as a gateway fills it, without a gateway."""

import asyncio
import json
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import nats
from nats.js.api import StreamConfig
from nats.js.client import JetStreamContext
from nats.js.errors import ServerError

from gateway.stream.link.dialing import NatsAddress
from gateway.stream.link.link import NatsLink
from support.servers import NatsServer
from support.waiting import eventually

_STORE_NOT_CREATED = 10049


async def add_stream(jetstream: JetStreamContext, config: StreamConfig) -> None:
    """Create a stream, perhaps one that was deleted a moment ago.

    nats-server (2.15) may still remove the files of the old one, and then now and then cannot
    create the new one.
    """

    async def added() -> bool:
        try:
            await jetstream.add_stream(config)
        except ServerError as exc:
            if exc.err_code != _STORE_NOT_CREATED:
                raise
            return False
        return True

    await eventually(added, "a stream")


async def make_streams(server: NatsServer, **more: Any) -> None:
    client = await nats.connect(server.url)
    for name in ("EVENTS", "DEADLETTERS"):
        subjects = [f"{name.lower()}.>"]
        await add_stream(client.jetstream(), StreamConfig(name, subjects=subjects, **more))
    await client.close()


async def publish_events(
    server: NatsServer,
    data: list[Any],
    *,
    first: int = 1,
    device: str = "veh-1",
    message_type: str = "battery.low",
    outbox: str = "o1",
) -> None:
    client = await nats.connect(server.url)
    jetstream = client.jetstream()

    async def publish(seq: int, payload: Any) -> None:
        text = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        await jetstream.publish(
            f"events.default.{device}.{message_type}",
            text,
            headers={
                "Nats-Msg-Id": f"default:{device}:{outbox}:{seq}",
                "ce-specversion": "1.0",
                "ce-id": f"{outbox}:{seq}",
                "ce-source": f"tidegate:default/{device}",
                "ce-type": message_type,
                "ce-time": "2026-11-25T10:00:00.5Z",
            },
        )

    for start in range(0, len(data), 500):
        part = data[start : start + 500]
        await asyncio.gather(
            *(publish(first + start + place, each) for place, each in enumerate(part))
        )
    await client.close()


async def letters(server: NatsServer) -> list[tuple[str, dict[str, str], bytes]]:
    """All dead letters: subject, headers, payload."""
    client = await nats.connect(server.url)
    jetstream = client.jetstream()
    count = (await jetstream.stream_info("DEADLETTERS")).state.messages
    got = [await jetstream.get_msg("DEADLETTERS", seq) for seq in range(1, count + 1)]
    await client.close()
    return [(each.subject or "", each.headers or {}, each.data or b"") for each in got]


@asynccontextmanager
async def linked(server: NatsServer):
    async def on_up(_client):
        pass

    link = NatsLink(
        NatsAddress((server.url,), reconnect_wait_s=0.01, reconnect_wait_max_s=0.05),
        name="test",
        on_up=on_up,
        on_ready=lambda _client: None,
        on_down=lambda: None,
        on_failure=lambda _exc: None,
        rng=Random(1),
    )
    link.start()
    yield link
    await link.stop()
