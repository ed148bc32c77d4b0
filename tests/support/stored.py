"""Reading the streams back with nats-py alone: what the tests believe, not what a gateway says."""

from dataclasses import dataclass
from pathlib import Path

import nats
import nats.errors
from nats.js.api import ConsumerConfig, DeliverPolicy

from gateway.stream.server.roles import Role, url_file


@dataclass(frozen=True)
class Stored:
    subject: str
    data: bytes
    headers: dict[str, str]

    @property
    def device(self) -> str:
        return self.subject.split(".")[2]

    @property
    def outbox(self) -> str:
        return self.headers["Nats-Msg-Id"].split(":")[2]

    @property
    def seq(self) -> int:
        return int(self.headers["Nats-Msg-Id"].rsplit(":", 1)[1])


async def read_stream(url: str, stream: str = "EVENTS") -> list[Stored]:
    """Everything in `stream`, in order."""
    client = await nats.connect(url)
    try:
        context = client.jetstream()
        total = (await context.stream_info(stream)).state.messages
        config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
        subscription = await context.subscribe(
            f"{stream.lower()}.>", stream=stream, ordered_consumer=True, config=config
        )
        stored = []
        while len(stored) < total:
            msg = await subscription.next_msg(timeout=20)
            stored.append(Stored(msg.subject, msg.data, dict(msg.headers or {})))
        return stored
    finally:
        await client.close()


async def read_embedded(data_dir: Path, stream: str = "EVENTS") -> list[Stored]:
    """Everything in a stream of a running gateway, as an operator reads it."""
    return await read_stream(url_file(data_dir, Role.OPERATORS).read_text().strip(), stream)


def by_device(stored: list[Stored]) -> dict[tuple[str, str], list[int]]:
    """The seqs of each (device, outbox) in stream order."""
    seqs: dict[tuple[str, str], list[int]] = {}
    for each in stored:
        seqs.setdefault((each.device, each.outbox), []).append(each.seq)
    return seqs
