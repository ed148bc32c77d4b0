"""What becomes of a letter of the gateway when it is sent again: an event, as if it had been right.

A redriven event is stored under an id of its own,
`<tenant>:<device>:redrive/<stage>:<letter's sequence>`. The gateway finds out how far an outbox has
come by the last message of that outbox (`stream/stored.py`). A redriven seq 3 that is stored behind
seq 10 under the device's own id would say 3, and the device would send 4 to 10 again. No outbox can
have a slash in its name, so this id is never of one. `ce-id` stays what it was.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.events.dead_letters import Letter
from gateway.events.errors import RedriveError
from tidegate.wire.grammar import is_message_type, is_timestamp

Check = Callable[[str, bytes], str | None]
"""What a schema says of a type and its data; None if it fits."""


class Redriven(Struct, frozen=True):
    """An event to be stored."""

    letter: Letter
    subject: str
    headers: Mapping[str, str]
    payload: bytes


def redrive_id(letter: Letter) -> str:
    """`Nats-Msg-Id` of the redriven event: the same however often the letter is sent."""
    return f"{letter.tenant}:{letter.device}:redrive/{letter.stage}:{letter.seq}"


def redriven(letter: Letter, patch: Mapping[str, Any] | None, check: Check) -> Redriven:
    """The event that a letter of the gateway becomes.

    Args:
        letter: of stage `ingest` or `schema`.
        patch: a JSON merge patch (RFC 7396) for the event's data; None changes nothing.
        check: the schemas in force.

    Raises:
        RedriveError: it cannot be an event, with the reason.
    """
    if letter.truncated:
        raise RedriveError("it holds only the beginning of what was sent")
    message = letter.message()
    if message is None:
        raise RedriveError("it is no JSON object")
    message_type, time = message.get("type"), message.get("time", letter.headers.get("ce-time", ""))
    if not isinstance(message_type, str) or not is_message_type(message_type):
        raise RedriveError("its type is none")
    if "data" not in message:
        raise RedriveError("it has no data")
    if not isinstance(time, str) or not is_timestamp(time):
        raise RedriveError("its time is none")
    payload = _payload(letter, message["data"], patch)
    problem = check(message_type, payload)
    if problem is not None:
        raise RedriveError(f"schema: {problem}")
    seq = letter.headers.get("Tidegate-Seq", "")
    headers = {
        "Nats-Msg-Id": redrive_id(letter),
        "ce-specversion": "1.0",
        "ce-id": f"{letter.headers.get('Tidegate-Outbox', '')}:{seq}",
        "ce-source": f"tidegate:{letter.tenant}/{letter.device}",
        "ce-type": message_type,
        "ce-time": time,
        "Tidegate-Redriven": str(letter.seq),
    }
    subject = f"events.{letter.tenant}.{letter.device}.{message_type}"
    return Redriven(letter, subject, headers, payload)


def _payload(letter: Letter, data: Any, patch: Mapping[str, Any] | None) -> bytes:
    if patch is None:
        # The text as the device sent it: a number keeps its digits.
        return bytes(msgspec.json.decode(letter.data, type=dict[str, Raw])["data"])
    return msgspec.json.encode(merged(data, dict(patch)))


def merged(target: Any, patch: Any) -> Any:
    """The target with a JSON merge patch applied (RFC 7396, section 2)."""
    if not isinstance(patch, dict):
        return patch
    found = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = merged(found.get(name), value)
    return found
