"""Reading presence facts back with nats-py alone, and the truth by their fences."""

import json

import nats.js.errors

from support.stored import Stored, read_stream


def facts_in(stored: list[Stored], device: str | None = None) -> list[dict]:
    """The facts, in stream order, each with its device."""
    return [
        {"device": each.device, **json.loads(each.data)}
        for each in stored
        if device in (None, each.device)
    ]


def states_in(facts: list[dict]) -> list[tuple[bool, str]]:
    """Online and cause of each fact."""
    return [(fact["online"], fact["cause"]) for fact in facts]


def truth_of(facts: list[dict]) -> dict[str, dict]:
    """The fact of each device that has the highest fence; of one session, its end."""
    newest: dict[str, dict] = {}
    for fact in facts:
        known = newest.get(fact["device"])
        if known is None or (fact["fence"], not fact["online"]) > (
            known["fence"],
            not known["online"],
        ):
            newest[fact["device"]] = fact
    return newest


async def presence(url: str, device: str | None = None) -> list[dict]:
    """All facts, or those of one device, in stream order."""
    try:
        return facts_in(await read_stream(url, "PRESENCE"), device)
    except nats.js.errors.NotFoundError:
        return []
