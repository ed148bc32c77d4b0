"""What a consumer has not processed yet, asked of the stream while the consumer stands still.

A sink whose database is away has no reader that knows how far behind it is. Just then the lag
matters: an event that the stream drops before it was read is lost.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec
from msgspec import Struct
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from gateway.stream.link.client import LinkClient

_TIMEOUT_S: Final = 5.0
_INACTIVE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Backlog:
    """Events behind a position."""

    messages: int
    oldest_at_s: float = 0.0
    """When the oldest of them was stored, Unix seconds; 0 if there is none."""


class _Message(Struct):
    seq: int
    time: datetime


class _Got(Struct):
    message: _Message | None = None


async def backlog(
    client: LinkClient,
    stream: str,
    subjects: Sequence[str],
    position: int,
    *,
    messages: int | None = None,
) -> Backlog:
    """Count the messages of these subjects behind a position, and date the oldest.

    Args:
        client: the connection.
        stream: that holds them.
        subjects: filters.
        position: a sequence.
        messages: how many they are; None if that is not known.

    Raises:
        nats.errors.Error: JetStream does not answer, or refuses.
    """
    if messages is None:
        messages = await _count(client, stream, subjects, position)
    if not messages:
        return Backlog(0)
    found = [await _next(client, stream, subject, position + 1) for subject in subjects]
    oldest = min((each.time.timestamp() for each in found if each is not None), default=0.0)
    return Backlog(messages, oldest)


async def _count(client: LinkClient, stream: str, subjects: Sequence[str], position: int) -> int:
    jetstream = client.jetstream(timeout=_TIMEOUT_S)
    name = f"tidegate-count-{secrets.token_hex(6)}"
    info = await jetstream.add_consumer(
        stream,
        ConsumerConfig(
            name=name,
            ack_policy=AckPolicy.NONE,
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=position + 1,
            filter_subject=subjects[0] if len(subjects) == 1 else None,
            filter_subjects=list(subjects) if len(subjects) > 1 else None,
            inactive_threshold=_INACTIVE_S,
            mem_storage=True,
            num_replicas=1,
        ),
    )
    await jetstream.delete_consumer(stream, name)
    return info.num_pending or 0


async def _next(client: LinkClient, stream: str, subject: str, seq: int) -> _Message | None:
    body = msgspec.json.encode({"seq": seq, "next_by_subj": subject})
    answer = await client.request(f"$JS.API.STREAM.MSG.GET.{stream}", body, timeout=_TIMEOUT_S)
    return msgspec.json.decode(answer.data, type=_Got).message
