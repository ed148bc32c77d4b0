"""Reads what a stream holds now, once, in order: up to its end, and not what comes meanwhile."""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Final, TypeVar

from gateway import tasks
from gateway.stream.link.client import LinkClient
from gateway.stream.provisioning.inspection import stream_facts
from gateway.stream.reading.reader import Link, Make, StartAt, StreamReader

_ROOM_MESSAGES: Final = 2_000
_ROOM_BYTES: Final = 8 << 20
_QUIET_S: Final = 1.0

T = TypeVar("T")


async def stored_now(
    link: Link,
    stream: str,
    subjects: Sequence[str],
    make: Make[T],
    *,
    after: int = 0,
    since: datetime | None = None,
    last_of_each: bool = False,
    room_messages: int = _ROOM_MESSAGES,
) -> AsyncGenerator[T, None]:
    """What is stored behind a sequence.

    Args:
        link: the connection.
        stream: what to read.
        subjects: filters, without overlaps.
        make: makes an item of a message.
        after: the sequence behind which reading begins.
        since: the time at which it begins, in place of a sequence.
        last_of_each: read only the last message of each subject.
        room_messages: asked for at once; few, if the reader stops early.

    Raises:
        StreamMissing: there is no such stream.
        nats.errors.Error: JetStream does not answer.
    """
    last = (await stream_facts(await link.wait_up(), stream)).last_seq

    async def start(_client: LinkClient, accepted: int) -> StartAt:
        if not accepted and (since is not None or last_of_each):
            return StartAt(time=since, last_of_each=last_of_each)
        return StartAt(max(accepted, after) + 1)

    reader = StreamReader(
        link,
        stream,
        subjects,
        start=start,
        make=make,
        room_messages=room_messages,
        room_bytes=_ROOM_BYTES,
        rng=random.Random(),
    )
    reading = asyncio.create_task(reader.run(), name=f"stored-now-{stream}")
    try:
        while True:
            if reading.done():
                reading.result()
            # Asked before taking: what is taken then is all that was stored.
            at_end = reader.begun.is_set() and (not reader.pending or reader.accepted >= last)
            for item in reader.take(room_messages, _ROOM_BYTES):
                yield item
            if at_end:
                break
            waited_for = reader.arrived if reader.begun.is_set() else reader.begun
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_QUIET_S):
                    await waited_for.wait()
    finally:
        await tasks.end(reading)
