"""Fills a stream with events as a gateway stores them, faster than devices could send them."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import nats
import nats.js.errors
from nats.js.api import StreamConfig

_BATCH: Final = 1_000
_OUTBOX: Final = "c031baeced4e9994"

Payload = Callable[[int], bytes]
"""Makes the `data` of an event from its number, which begins with 0."""


def plain(number: int) -> bytes:
    """A small event of a vehicle."""
    return b'{"soc":%d,"voltage":12.345,"lat":52.1,"lon":13.4,"note":"ok"}' % (number % 101)


def event_of(number: int, devices: int, payload: Payload) -> tuple[str, int, bytes]:
    """Device, seq and data of an event; devices take turns."""
    return f"veh-{number % devices}", number // devices + 1, payload(number)


async def make_streams(url: str) -> None:
    """Make the streams EVENTS and DEADLETTERS, unless they exist."""
    client = await nats.connect(url)
    for name in ("EVENTS", "DEADLETTERS"):
        config = StreamConfig(name, subjects=[f"{name.lower()}.>"], allow_direct=True)
        await client.jetstream().add_stream(config)
    await client.close()


async def fill(
    url: str, first: int, count: int, *, devices: int = 100, payload: Payload = plain
) -> None:
    """Store `count` events, numbered from `first`, each exactly once even if servers die meanwhile.

    A part whose last PubAck does not arrive is sent again with the same ids.
    """
    sent = first
    while sent < first + count:
        part = range(sent, min(sent + _BATCH, first + count))
        try:
            await _publish(url, part, devices, payload)
        except (OSError, TimeoutError, nats.errors.Error):
            await asyncio.sleep(0.2)
            continue
        sent = part.stop


async def stored(url: str) -> int:
    """Messages in EVENTS."""
    client = await nats.connect(url)
    try:
        return (await client.jetstream().stream_info("EVENTS")).state.messages
    finally:
        await client.close()


async def _publish(url: str, numbers: Sequence[int], devices: int, payload: Payload) -> None:
    client = await nats.connect(url, connect_timeout=2, max_reconnect_attempts=1)
    try:
        jetstream = client.jetstream(timeout=5)

        async def publish(number: int) -> None:
            device, seq, data = event_of(number, devices, payload)
            await jetstream.publish(
                f"events.default.{device}.battery.low",
                data,
                headers={
                    "Nats-Msg-Id": f"default:{device}:{_OUTBOX}:{seq}",
                    "ce-specversion": "1.0",
                    "ce-id": f"{_OUTBOX}:{seq}",
                    "ce-source": f"tidegate:default/{device}",
                    "ce-type": "battery.low",
                    "ce-time": "2026-11-25T10:00:00.123Z",
                },
            )

        # One after the other for each device, so that a part sent again keeps the order.
        for start in range(0, len(numbers), devices):
            await asyncio.gather(*(publish(each) for each in numbers[start : start + devices]))
    finally:
        await client.close()
