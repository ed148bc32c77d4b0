"""A request to a device that is connected now, and what its answer means. Pure.

`json` and named tuples, because msgspec and dataclasses take longer to import than a command that
asks one device may take.
"""

import json
from typing import Any, Final, NamedTuple

from gateway.stream.errors import NotAnswered
from gateway.stream.queue.status import NOT_UNDERSTOOD, Status

OFFLINE: Final = "offline"
NO_ANSWER: Final = "no_answer"
NO_DATA: Final = object()
"""Of an outcome to which no device has said anything: `None` is data."""


class Outcome(NamedTuple):
    """How a request ended: `done`, `failed`, or why no device answered."""

    outcome: str
    id: str = ""
    data: Any = NO_DATA
    detail: str = ""


NOT_THERE: Final = Outcome(OFFLINE, detail="no node holds the device")
"""Of a request that no node hears."""


def silence(wait_s: float) -> Outcome:
    """Of a request without an answer in this time."""
    return Outcome(NO_ANSWER, detail=f"the device has not answered in {wait_s:g} s")


def request_subject(key: tuple[str, str]) -> str:
    """Where the node listens that has the device: tenant and id."""
    return f"commands.{key[0]}.{key[1]}"


def request_body(message_type: str, data: bytes) -> bytes:
    """The payload of a request. `data` is JSON."""
    return b'{"type":%b,"data":%b}' % (json.dumps(message_type).encode(), data)


def read_outcome(answer: bytes) -> Outcome:
    """What an answer means.

    Raises:
        NotAnswered: somebody answered who is no gateway.
    """
    try:
        told = json.loads(answer)
    except (ValueError, RecursionError) as exc:
        raise NotAnswered(f"the answer cannot be read: {exc}") from None
    if not isinstance(told, dict):
        raise NotAnswered("the answer cannot be read: it is no object")
    if told.get("error"):
        return Outcome(str(told["error"]), detail=str(told.get("detail", "")))
    command_id, data = str(told.get("id", "")), told.get("data")
    if told.get("ok") is True:
        status = Status.DONE.value
    elif isinstance(data, dict) and data.get("error") == NOT_UNDERSTOOD:
        status = NOT_UNDERSTOOD
    else:
        status = Status.FAILED.value
    return Outcome(status, command_id, data)
