"""The checker compares what was acknowledged with what is stored. It trusts no server's word.

Writers record what was acknowledged to them. The checker reads the whole stream with a client of
its own, and counts and names what was lost, duplicated, reordered or corrupted. Only the functions
that read the stream do I/O.
"""

import asyncio
import json
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass, field
from time import monotonic
from typing import Any, Final

import nats
import nats.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from loadtest.devices.payloads import claim_of, intact, numbered_intact

_EXAMPLES_MAX: Final = 5
_PART_MESSAGES: Final = 1_000
_READ_TIMEOUT_S: Final = 30.0


@dataclass(slots=True)
class Finding:
    """One kind of damage: how often, and a few examples."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        self.count += 1
        if len(self.examples) < _EXAMPLES_MAX:
            self.examples.append(example)


class Checker:
    """Takes the stream in order, then the acknowledgements, and then has the findings."""

    def __init__(self, is_intact: Callable[[str, int, bytes], bool] = intact) -> None:
        """
        Args:
            is_intact: whether the data of a device's message is what it sent.
        """
        self._is_intact = is_intact
        self.stored = 0
        self.lost = Finding()
        self.duplicated = Finding()
        self.reordered = Finding()
        self.corrupted = Finding()
        self._seen: defaultdict[str, set[int]] = defaultdict(set)
        self._last: dict[str, int] = {}

    def take(self, device: str, seq: int, data: bytes) -> None:
        """The next message of the stream."""
        self.stored += 1
        if not self._is_intact(device, seq, data):
            self.corrupted.add(f"{device} seq {seq}: {data[:60]!r}")
        if seq in self._seen[device]:
            self.duplicated.add(f"{device} seq {seq}")
            return
        self._seen[device].add(seq)
        last = self._last.get(device, 0)
        if seq < last:
            self.reordered.add(f"{device} seq {seq} after {last}")
        self._last[device] = max(last, seq)

    def finish(self, acknowledged: Mapping[str, int]) -> None:
        """Compare with what was acknowledged: everything up to a seq, for each device."""
        for device, acked in acknowledged.items():
            seen = self._seen[device]
            for seq in range(1, acked + 1):
                if seq not in seen:
                    self.lost.add(f"{device} seq {seq} of {acked} acknowledged")

    @property
    def clean(self) -> bool:
        return not any(found.count for _name, found in self.findings())

    def findings(self) -> list[tuple[str, Finding]]:
        return [
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("reordered", self.reordered),
            ("corrupted", self.corrupted),
        ]


async def _subscribe(jetstream: JetStreamContext, stream: str) -> Any:
    """Subscribe to all of it; ask again while a cluster that was hurt a moment ago is silent."""
    deadline = monotonic() + _READ_TIMEOUT_S
    while True:
        try:
            return await jetstream.pull_subscribe(
                ">",
                stream=stream,
                config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.NONE),
            )
        except nats.errors.TimeoutError:
            if monotonic() > deadline:
                raise


async def messages_of(url: str, stream: str = "EVENTS") -> AsyncIterator[Msg]:
    """Every message that is in the stream now, in its order."""
    client = await nats.connect(url)
    try:
        left = (await client.jetstream().stream_info(stream)).state.messages
        subscription = await _subscribe(client.jetstream(), stream)
        while left:
            # Asked for in parts: what a server pushes faster than it is read here, nats-py drops.
            for message in await subscription.fetch(
                min(left, _PART_MESSAGES), timeout=_READ_TIMEOUT_S
            ):
                yield message
                left -= 1
    finally:
        await client.close()


async def read_stream(url: str, stream: str = "EVENTS") -> AsyncIterator[tuple[str, int, bytes]]:
    """Label, seq and data of every message, in the order of the stream.

    The seq is the one in the data. The one in the headers is the gateway's word, which is judged.
    """
    async for message in messages_of(url, stream):
        device = message.subject.split(".")[2]
        yield *claim_of(device, message.data), message.data


async def checked(url: str, acknowledged: Mapping[str, int]) -> Checker:
    """Read the whole stream and compare it with what was acknowledged to writers."""
    checker = Checker()
    async for label, seq, data in read_stream(url):
        checker.take(label, seq, data)
    checker.finish(acknowledged)
    return checker


async def _main(url: str) -> None:
    acknowledged = json.load(sys.stdin)
    checker = Checker(numbered_intact)
    async for device, seq, data in read_stream(url):
        if device in acknowledged:  # a gateway that the user names has others, too
            checker.take(device, seq, data)
    checker.finish(acknowledged)
    findings = {name: asdict(found) for name, found in checker.findings()}
    print(json.dumps({"stored": checker.stored, **findings}))


if __name__ == "__main__":
    # What vehicles sent, in a process of its own: `python -m loadtest.checker NATS_URL`, with what
    # was acknowledged to each device on stdin, as JSON.
    asyncio.run(_main(sys.argv[1]))
