"""A rule, and the stream that it sends to."""

import json
from contextlib import asynccontextmanager

import nats
import pytest
from nats.js.api import StreamConfig

from gateway.events.rules import Rule
from support.eventstream import make_streams
from support.servers import nats_server
from support.waiting import eventually

LOW = {"type": ["battery.low"], "data": {"soc": [{"numeric": ["<", 20]}]}}


@pytest.fixture
async def stream(tmp_path):
    with nats_server(tmp_path / "nats") as server:
        await make_streams(server)
        yield server


def rule(to="nats:alerts.{tenant}.{device}", **changes):
    return Rule.model_validate({"name": "low", "when": LOW, "to": to, "from": "start"} | changes)


async def make_target(server, **more):
    config = {"name": "ALERTS", "subjects": ["alerts.>"], "allow_atomic": True} | more
    async with connected(server) as client:
        await client.jetstream().add_stream(StreamConfig(**config))


@asynccontextmanager
async def connected(server):
    client = await nats.connect(server.url)
    yield client
    await client.close()


async def arrived(server, stream="ALERTS"):
    """What the target holds, in order."""
    async with connected(server) as client:
        jetstream = client.jetstream()
        count = (await jetstream.stream_info(stream)).state.messages
        return [await jetstream.get_msg(stream, seq) for seq in range(1, count + 1)]


async def payloads(server, count):
    async def enough():
        async with connected(server) as client:
            info = await client.jetstream().stream_info("ALERTS")
        return info.state.messages >= count

    await eventually(enough, f"{count} messages")
    return [json.loads(message.data)["soc"] for message in await arrived(server)]
