"""The way to a table without a sink: read an event, insert it, commit, acknowledge; again.

    python -m loadtest.benches.insert_each NATS_URL DATABASE_URL COUNT

`make bench-sink` compares the sink with it. It uses the same libraries as the sink.
"""

import asyncio
import json
import sys
from typing import Final

import nats
import psycopg
import uvloop
from nats.js.api import ConsumerConfig

_FETCH: Final = 100
_INSERT: Final = (
    "INSERT INTO battery (device, at, stream_seq, soc, voltage) VALUES (%s, %s, %s, %s, %s)"
)
_LIMIT_S: Final = 600.0


async def bounded(nats_url: str, database_url: str, count: int) -> None:
    """Insert, for a limited time.

    Raises:
        TimeoutError: the time is over.
    """
    async with asyncio.timeout(_LIMIT_S):
        await insert_each(nats_url, database_url, count)


async def insert_each(nats_url: str, database_url: str, count: int) -> None:
    """Insert `count` events from the start of the stream."""
    client = await nats.connect(nats_url)
    connection = await psycopg.AsyncConnection.connect(database_url, autocommit=True)
    subscription = await client.jetstream().pull_subscribe(
        "events.>", stream="EVENTS", config=ConsumerConfig(inactive_threshold=60)
    )
    done = 0
    while done < count:
        for message in await subscription.fetch(min(_FETCH, count - done), timeout=10):
            data = json.loads(message.data)
            headers = message.headers or {}
            await connection.execute(
                _INSERT,
                (
                    message.subject.split(".")[2],
                    headers.get("ce-time"),
                    message.metadata.sequence.stream,
                    data["soc"],
                    data["voltage"],
                ),
            )
            await message.ack()
            done += 1
    await connection.close()
    await client.close()


if __name__ == "__main__":
    uvloop.run(bounded(sys.argv[1], sys.argv[2], int(sys.argv[3])))
