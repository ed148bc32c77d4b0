"""Reading back what is stored: the iterator behind `tidegate tail`."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, DeliverPolicy

from gateway.stream.encoding import DEADLETTERS, EVENTS


@dataclass(frozen=True, slots=True)
class ReplayFilter:
    """What to read. None is everything; `since` None with `new_only` False is from the start."""

    tenant: str | None = None
    device: str | None = None
    message_type: str | None = None
    since: datetime | None = None
    new_only: bool = False
    dead_letters: bool = False

    @property
    def stream(self) -> str:
        return DEADLETTERS if self.dead_letters else EVENTS

    @property
    def subject(self) -> str:
        prefix = f"{self.stream.lower()}.{self.tenant or '*'}.{self.device or '*'}"
        return prefix if self.dead_letters else f"{prefix}.{self.message_type or '>'}"


async def replay(client: Client, wanted: ReplayFilter, *, follow: bool) -> AsyncIterator[bytes]:
    """Stored messages in stream order, one JSON line each.

    Args:
        client: a connected NATS client.
        wanted: what to read.
        follow: go on with what is stored from now on; else stop at the end.
    """
    policy = DeliverPolicy.ALL
    if wanted.since is not None:
        policy = DeliverPolicy.BY_START_TIME
    elif wanted.new_only:
        policy = DeliverPolicy.NEW
    config = ConsumerConfig(
        deliver_policy=policy,
        opt_start_time=wanted.since.isoformat() if wanted.since is not None else None,  # type: ignore[arg-type]  # the server wants RFC 3339 text
    )
    subscription = await client.jetstream().subscribe(
        wanted.subject, stream=wanted.stream, config=config, ordered_consumer=True
    )
    try:
        info = await subscription.consumer_info()
        # Some may have been delivered before the question was answered.
        delivered = info.delivered.consumer_seq if info.delivered is not None else 0
        at_end = not info.num_pending and not delivered
        while follow or not at_end:
            try:
                message = await subscription.next_msg(timeout=1.0)
            except nats.errors.TimeoutError:
                continue
            at_end = message.metadata.num_pending == 0
            yield render(message)
    finally:
        await subscription.unsubscribe()


def render(message: Msg) -> bytes:
    """A stored message as one line of JSON: where it is, what its headers say, its data."""
    headers = dict(message.headers or {})
    tokens = message.subject.split(".")
    outbox, _, seq = headers.get("ce-id", "").rpartition(":")
    line: dict[str, Any] = {
        "stream_seq": message.metadata.sequence.stream,
        "tenant": tokens[1],
        "device": tokens[2],
        "type": ".".join(tokens[3:]) or None,
        "outbox": outbox or headers.get("Tidegate-Outbox"),
        "seq": int(seq or headers.get("Tidegate-Seq", "0")),
        "time": headers.get("ce-time"),
        "stored": message.metadata.timestamp.isoformat(),
    }
    if "Tidegate-Error" in headers:
        line["error"] = headers["Tidegate-Error"]
        line["detail"] = headers.get("Tidegate-Detail")
        line["original"] = message.data.decode(errors="replace")
    else:
        line["data"] = msgspec.Raw(message.data)
    return msgspec.json.encode({name: value for name, value in line.items() if value is not None})
