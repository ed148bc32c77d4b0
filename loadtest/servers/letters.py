"""Dead letters as gateways and rules write them, in numbers."""

import asyncio
from typing import Final

import nats
from nats.js.api import StreamConfig

_AT_ONCE: Final = 500
RULE: Final = "low"
RULE_TYPE: Final = "battery.low"
GATEWAY_TYPE: Final = "battery.high"


async def make_letter_streams(url: str, *, duplicate_window_s: float) -> None:
    """EVENTS, DEADLETTERS, and ALERTS for what the rule derives."""
    client = await nats.connect(url)
    for name in ("EVENTS", "DEADLETTERS", "ALERTS"):
        await client.jetstream().add_stream(
            StreamConfig(
                name,
                subjects=[f"{name.lower()}.>"],
                duplicate_window=duplicate_window_s,
                allow_direct=True,
                allow_atomic=True,
            )
        )
    await client.close()


async def bury(url: str, count: int, *, devices: int = 100) -> None:
    """Store letters, by turns of the gateway (stage `schema`) and of the rule."""
    client = await nats.connect(url)
    jetstream = client.jetstream(timeout=30)
    for first in range(0, count, _AT_ONCE):
        part = range(first, min(count, first + _AT_ONCE))
        letters = [letter_of(number, devices) for number in part]
        # In order of the stream, so that the order of each device is known.
        futures = [
            await jetstream.publish_async(subject, data, headers=headers)
            for subject, headers, data in letters
        ]
        await asyncio.gather(*futures)
    await client.close()


def letter_of(number: int, devices: int) -> tuple[str, dict[str, str], bytes]:
    """Subject, headers and data of a letter, from 0. Devices take turns."""
    device, seq = f"veh-{number // 2 % devices}", number + 1
    data = b'{"soc":%d,"number":%d}' % (101 + number % 50, number)
    shared = {"ce-time": "2026-11-25T10:00:00Z", "Tidegate-Detail": "data.soc: too much"}
    if number % 2:
        return (
            f"deadletters.default.{device}.rule.{RULE}",
            shared
            | {
                "Nats-Msg-Id": f"default:{device}:rule/{RULE}:{seq}",
                "Tidegate-Stage": "rule",
                "Tidegate-Consumer": RULE,
                "Tidegate-Stream-Seq": str(seq),
                "Tidegate-Error": "http_503",
                "ce-id": f"o1:{seq}",
                "ce-type": RULE_TYPE,
            },
            data,
        )
    return (
        f"deadletters.default.{device}",
        shared
        | {
            "Nats-Msg-Id": f"default:{device}:o1:{seq}",
            "Tidegate-Outbox": "o1",
            "Tidegate-Seq": str(seq),
            "Tidegate-Error": "schema",
        },
        b'{"seq":%d,"type":"%b","data":%b}' % (seq, GATEWAY_TYPE.encode(), data),
    )
