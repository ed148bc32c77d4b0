"""A bare publisher counts what the stream has stored."""

import asyncio
import contextlib

import nats
import pytest
from nats.js.api import StreamConfig

from loadtest.devices.publisher import BATCH_MESSAGES, BarePublisher
from loadtest.errors import TargetError
from support.servers import nats_server
from support.waiting import eventually, within

BATCH = {"jetstream": {"limits": {"batch": {"max_msgs": 4_000}}}}


async def stored(server):
    client = await nats.connect(server.url)
    try:
        return (await client.jetstream().stream_info("EVENTS")).state.messages
    finally:
        await client.close()


@pytest.mark.parametrize("kind", ["atomic", "fast", "linked"])
async def test_what_is_counted_is_in_the_stream(tmp_path, kind):
    batch = BATCH["jetstream"] | {"store_dir": str(tmp_path / "js")}
    with nats_server(tmp_path / "nats", jetstream=batch) as server:
        client = await nats.connect(server.url)
        config = StreamConfig(
            "EVENTS", subjects=["events.>"], allow_atomic=True, allow_batched=True
        )
        await client.jetstream().add_stream(config)
        await client.close()
        publisher = BarePublisher(kind, devices=7)
        running = asyncio.create_task(publisher.run(server.url))
        await eventually(lambda: publisher.stored >= 3 * BATCH_MESSAGES[kind])
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        assert (
            publisher.stored <= await stored(server) <= publisher.stored + 3 * BATCH_MESSAGES[kind]
        )


async def test_a_batch_that_is_refused_ends_the_publisher(tmp_path):
    with nats_server(tmp_path / "nats") as server:
        client = await nats.connect(server.url)
        await client.jetstream().add_stream(StreamConfig("EVENTS", subjects=["events.>"]))
        await client.close()
        with pytest.raises(TargetError, match="atomic publish is disabled"):
            await within(BarePublisher("atomic", devices=7).run(server.url))
