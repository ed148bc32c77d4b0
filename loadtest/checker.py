"""The checker: what was acknowledged against what is stored. It takes nobody's word.

Writers record what was acknowledged to them; the stream is read whole, with a client of its own;
and what was lost, doubled, reordered or corrupted is counted and named. Pure but for `read_stream`.
"""

import asyncio
import json
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass, field
from time import monotonic
from typing import Any, Final
from zlib import crc32

import nats
import nats.errors
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, DeliverPolicy

from loadtest.devices import telemetry

_EXAMPLES_MAX: Final = 5
_READ_TIMEOUT_S: Final = 30.0


def payload(device: str, seq: int) -> bytes:
    """The data of a message: what it is, and a sum over that."""
    return b'{"d":"%b","n":%d,"crc":%d}' % (
        device.encode(),
        seq,
        crc32(b"%b:%d" % (device.encode(), seq)),
    )


def _intact(device: str, seq: int, data: bytes) -> bool:
    try:
        found = json.loads(data)
    except ValueError:
        return False
    return bool(found == json.loads(payload(device, seq)))


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
    """Feed it the stream in order, then ask for the verdict."""

    def __init__(self, intact: Callable[[str, int, bytes], bool] = _intact) -> None:
        """
        Args:
            intact: whether the data of a device's message is what it sent.
        """
        self._intact = intact
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
        if not self._intact(device, seq, data):
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


def _claimed(device: str, data: bytes) -> tuple[str, int]:
    """Who a message says it is of, and its number: a device, or one outbox of it."""
    try:
        content = json.loads(data)
        label, seq = str(content.get("d", device)), int(content["n"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return device, 0
    return label if label.startswith(f"{device}/") else device, seq


async def _subscribe(jetstream: JetStreamContext, stream: str) -> Any:
    """All of it; asked again while a cluster that was hurt a moment ago does not answer."""
    deadline = monotonic() + _READ_TIMEOUT_S
    while True:
        try:
            return await jetstream.subscribe(
                f"{stream.lower()}.>",
                stream=stream,
                ordered_consumer=True,
                config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL),
            )
        except nats.errors.TimeoutError:
            if monotonic() > deadline:
                raise


async def read_stream(url: str, stream: str = "EVENTS") -> AsyncIterator[tuple[str, int, bytes]]:
    """Device, seq and data of every message, in the order of the stream.

    The seq is that of the data, not of a header: the headers are the gateway's word.
    """
    client = await nats.connect(url)
    try:
        left = (await client.jetstream().stream_info(stream)).state.messages
        subscription = await _subscribe(client.jetstream(), stream)
        while left:
            message = await subscription.next_msg(timeout=_READ_TIMEOUT_S)
            left -= 1
            device = message.subject.split(".")[2]
            yield *_claimed(device, message.data), message.data
    finally:
        await client.close()


async def _main(url: str) -> None:
    acknowledged = json.load(sys.stdin)
    checker = Checker(telemetry.intact)
    async for device, seq, data in read_stream(url):
        if device in acknowledged:  # the stream of a visited gateway holds others, too
            checker.take(device, seq, data)
    checker.finish(acknowledged)
    findings = {name: asdict(found) for name, found in checker.findings()}
    print(json.dumps({"stored": checker.stored, **findings}))


if __name__ == "__main__":
    # What vehicles sent, in a process of its own: `python -m loadtest.checker NATS_URL`, with what
    # was acknowledged to each device on stdin, as JSON.
    asyncio.run(_main(sys.argv[1]))
