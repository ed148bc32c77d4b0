"""Looks at what is stored of a type, once, to propose a schema from it."""

import asyncio
import contextlib
import random
from datetime import datetime
from typing import Final

import msgspec

from gateway.events.event import Event
from gateway.events.filters import subjects
from gateway.events.inference import SchemaProposal
from gateway.stream.link.client import LinkClient
from gateway.stream.names import EVENTS
from gateway.stream.provisioning.inspection import stream_facts
from gateway.stream.reading.reader import Link, StartAt, StreamReader

_BATCH: Final = 1_000
_BATCH_BYTES: Final = 8 << 20
_QUIET_S: Final = 1.0


async def survey(
    link: Link, message_type: str, since: datetime | None, events_max: int
) -> SchemaProposal:
    """Read the events of a type that are stored now.

    Args:
        link: the connection.
        message_type: the type.
        since: from then on, None for all.
        events_max: no more than so many.

    Raises:
        StreamMissing: there is no stream.
        nats.errors.Error: JetStream does not answer.
    """
    client = await link.wait_up()
    last_seq = (await stream_facts(client, EVENTS)).last_seq

    async def start(_client: LinkClient, accepted: int) -> StartAt:
        return StartAt(accepted + 1) if accepted or since is None else StartAt(time=since)

    reader = StreamReader(
        link,
        EVENTS,
        subjects([message_type]),
        start=start,
        make=Event,
        room_messages=_BATCH,
        room_bytes=_BATCH_BYTES,
        rng=random.Random(),
    )
    reading = asyncio.create_task(reader.run(), name="survey")
    proposal = SchemaProposal(message_type)
    try:
        while proposal.events < events_max and (len(reader) or reader.accepted < last_seq):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_QUIET_S):
                    await reader.arrived.wait()
            if reading.done():
                reading.result()
            if not len(reader) and reader.begun.is_set() and not reader.pending:
                break
            for event in reader.take(events_max - proposal.events, _BATCH_BYTES):
                with contextlib.suppress(msgspec.DecodeError, RecursionError):  # unreadable
                    proposal.add(event.data)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    return proposal
