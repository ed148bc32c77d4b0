"""Reads presence facts back with a client of its own, and knows which of them is the truth."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import nats
from nats.js.api import ConsumerConfig, DeliverPolicy

_READ_TIMEOUT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class StoredFact:
    """One message of the stream PRESENCE. Times are Unix seconds."""

    device: str
    online: bool
    fence: int
    cause: str
    lag_s: float
    """From the moment that it tells of until it was stored."""

    @property
    def order(self) -> tuple[int, bool]:
        """Facts of a device in the order of what happened."""
        return self.fence, not self.online


async def stored_facts(url: str) -> list[StoredFact]:
    """All facts, in stream order."""
    client = await nats.connect(url)
    try:
        context = client.jetstream()
        total = (await context.stream_info("PRESENCE")).state.messages
        subscription = await context.subscribe(
            "presence.>",
            stream="PRESENCE",
            ordered_consumer=True,
            config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL),
        )
        facts: list[StoredFact] = []
        while len(facts) < total:
            message = await subscription.next_msg(timeout=_READ_TIMEOUT_S)
            stored_at = message.metadata.timestamp.timestamp()
            facts.append(_fact(message.subject, json.loads(message.data), stored_at))
        return facts
    finally:
        await client.close()


def _fact(subject: str, body: dict[str, Any], stored_at: float) -> StoredFact:
    return StoredFact(
        subject.split(".")[2],
        body["online"],
        body["fence"],
        body["cause"],
        stored_at - datetime.fromisoformat(body["time"]).timestamp(),
    )


def truth_of(facts: list[StoredFact]) -> dict[str, StoredFact]:
    """The fact of each device that has the highest fence; of one session, its end."""
    newest: dict[str, StoredFact] = {}
    for fact in facts:
        known = newest.get(fact.device)
        if known is None or fact.order > known.order:
            newest[fact.device] = fact
    return newest
