"""What becomes of a letter when it is sent again.

A letter of the gateway (`ingest`, `schema`) becomes an event, as if it had been right. It is stored
under an id of its own, `<tenant>:<device>:redrive/<stage>:<letter's sequence>`. The gateway finds
out how far an outbox has come by the last message of that outbox (`stream/stored.py`). A redriven
seq 3 that is stored behind seq 10 under the device's own id would say 3, and the device would send
4 to 10 again. No outbox can have a slash in its name, so this id is never of one.

A letter of a consumer (`rule`, `sink`) is an event already. It goes to that consumer alone, through
the stream REDRIVES (`redrives.py`). `ce-id` stays what it was in both cases.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.events.dead_letters import Letter
from gateway.events.errors import RedriveError
from gateway.events.hops import HOPS_HEADER
from gateway.events.redrives import COUNT_HEADER, SEQ_HEADER, STORED_HEADER, redrives_subject
from tidegate.wire.grammar import is_message_type, is_timestamp, is_token

Check = Callable[[str, bytes], str | None]
"""What a schema says of a type and its data; None if it fits."""
Readers = frozenset[tuple[str, str]]
"""Stages and names of the rules and sinks that there are."""
Patch = Mapping[str, Any]
"""A JSON merge patch (RFC 7396) for the data of an event."""


class Redriven(Struct, frozen=True):
    """An event to be stored: in EVENTS for letters of the gateway, else in REDRIVES."""

    letter: Letter
    subject: str
    headers: Mapping[str, str]
    payload: bytes


def redrive_id(letter: Letter) -> str:
    """`Nats-Msg-Id` of the redriven event: the same however often the letter is sent."""
    return f"{letter.tenant}:{letter.device}:redrive/{letter.stage}:{letter.seq}"


def redriven(
    letter: Letter, patch: Patch | None, check: Check, readers: Readers | None = None
) -> Redriven:
    """What a letter becomes.

    Args:
        letter: of any stage.
        patch: for the event's data; None changes nothing.
        check: the schemas in force. What a consumer failed on has passed them before, so it is
            checked only if a patch changes it.
        readers: the consumers that there are; None if that is not known.

    Raises:
        RedriveError: it cannot be an event, with the reason.
    """
    if letter.truncated:
        raise RedriveError("it holds only the beginning of what was sent")
    if letter.of_gateway:
        return _event(letter, patch, check)
    if readers is not None and (letter.stage, letter.consumer) not in readers:
        raise RedriveError(f"the events file has no {letter.stage} {letter.consumer} to take it")
    return _for_consumer(letter, patch, check)


def _event(letter: Letter, patch: Patch | None, check: Check) -> Redriven:
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
    # The text as the device sent it: a number keeps its digits.
    payload = bytes(msgspec.json.decode(letter.data, type=dict[str, Raw])["data"])
    if patch is not None:
        payload = merged(payload, patch)
    _checked(message_type, payload, check)
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


def _for_consumer(letter: Letter, patch: Patch | None, check: Check) -> Redriven:
    if letter.stage not in ("rule", "sink") or not is_token(letter.consumer):
        raise RedriveError("it names no rule or sink that could take it")
    if not letter.headers.get(SEQ_HEADER, "").isdecimal():
        raise RedriveError("it does not say which event of the stream it holds")
    if not is_message_type(letter.type):
        raise RedriveError("its type is none")
    payload = letter.data
    if patch is not None:
        try:
            msgspec.json.decode(payload)
        except (msgspec.DecodeError, RecursionError):
            raise RedriveError("its data is no JSON, so no patch can change it") from None
        payload = merged(payload, patch)
        _checked(letter.type, payload, check)
    kept = (SEQ_HEADER, STORED_HEADER, HOPS_HEADER.decode(), "traceparent")
    headers = {
        name: value
        for name, value in letter.headers.items()
        if name.startswith("ce-") or name in kept
    }
    headers |= {
        "Nats-Msg-Id": redrive_id(letter),
        "Tidegate-Redriven": str(letter.seq),
        COUNT_HEADER: str(letter.redrives + 1),
    }
    subject = redrives_subject(letter.stage, letter.consumer, letter.tenant, letter.device)
    return Redriven(letter, subject, headers, payload)


def _checked(message_type: str, payload: bytes, check: Check) -> None:
    problem = check(message_type, payload)
    if problem is not None:
        raise RedriveError(f"schema: {problem}")


def merged(target: bytes, patch: Any) -> bytes:
    """The JSON text of a value with a merge patch applied (RFC 7396, section 2).

    What the patch does not name keeps its text, so a number keeps its digits.
    """
    if not isinstance(patch, Mapping):
        return msgspec.json.encode(patch)
    found: dict[str, Raw] = {}
    if target.lstrip(b" \t\r\n").startswith(b"{"):
        found = msgspec.json.decode(target, type=dict[str, Raw])
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = Raw(merged(bytes(found.get(name, b"")), value))
    return msgspec.json.encode(found)
