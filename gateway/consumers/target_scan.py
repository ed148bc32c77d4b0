"""Reads a target's stream to find out which events of a rule it holds already."""

import asyncio
import contextlib
import random
from typing import Final

from gateway.events.letters import seq_of_letter
from gateway.stream.nats_client import LinkClient
from gateway.stream.reader import Link, StartAt, StreamReader

_ROOM_MESSAGES: Final = 2_000
_ROOM_BYTES: Final = 8 << 20
_QUIET_S: Final = 1.0
_ID: Final = b"Nats-Msg-Id:"


async def delivered_behind(
    link: Link, stream: str, subject: str, rule: str, *, mark: int, last: int, after_seq: int
) -> set[int]:
    """The sequences in EVENTS whose derived messages are in the target.

    Args:
        link: the connection.
        stream: the target's.
        subject: a filter for the rule's subjects there.
        rule: its name.
        mark: the last sequence of the target that is known to be settled.
        last: the last one that it holds now.
        after_seq: the rule's position; what is at or before it does not matter.

    Raises:
        nats.errors.Error: JetStream does not answer.
    """

    async def start(_client: LinkClient, accepted: int) -> StartAt:
        return StartAt(max(accepted, mark) + 1)

    reader = StreamReader(
        link,
        stream,
        [subject],
        start=start,
        make=_id_of,
        room_messages=_ROOM_MESSAGES,
        room_bytes=_ROOM_BYTES,
        rng=random.Random(),
    )
    reading = asyncio.create_task(reader.run(), name=f"rule-scan-{rule}")
    found: set[int] = set()
    middle = f":rule/{rule}:"
    try:
        while len(reader) or reader.accepted < last:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.arrived.wait(), _QUIET_S)
            if reading.done():
                reading.result()
            for message_id in reader.take(_ROOM_MESSAGES, _ROOM_BYTES):
                if middle in message_id and (seq := seq_of_letter(message_id)) > after_seq:
                    found.add(seq)
            if not len(reader) and reader.begun.is_set() and not reader.pending:
                break
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    return found


def _id_of(_subject: str, headers: bytes, _data: bytes, _seq: int, _stored_ns: int) -> str:
    start = headers.find(_ID)
    if start < 0:
        return ""
    return headers[start + len(_ID) : headers.index(b"\r\n", start)].strip().decode()
