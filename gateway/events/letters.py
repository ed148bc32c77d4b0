"""Dead letters of consumers: the event's bytes, its `ce-*` headers, and what was wrong with it."""

from collections.abc import Mapping
from typing import Final, Literal
from urllib.parse import quote

from gateway.events.event import Event
from gateway.events.hops import HOPS_HEADER
from gateway.events.redrives import (
    COUNT_HEADER,
    SEQ_HEADER,
    STORED_HEADER,
    RedrivenEvent,
    redrives_name,
)

Stage = Literal["sink", "rule"]

_COPIED: Final = (
    b"ce-",
    b"traceparent:",
    *(name.lower() + b":" for name in (COUNT_HEADER.encode(), HOPS_HEADER)),
)
_DETAIL_CHARS_MAX: Final = 500
_SAFE: Final = " $.,:;'`()[]{}<>=/-_\""
"""What a header may hold as it is; everything else is percent-encoded, line ends above all."""


def letter_subject(event: Event, stage: Stage, name: str) -> str:
    """Where the letter of an event goes."""
    return f"deadletters.{event.tenant}.{event.device}.{stage}.{name}"


def letter_id(event: Event, stage: Stage, name: str) -> str:
    """`Nats-Msg-Id` of the letter: the same however often it is written.

    An event that fails again after a redrive gets a second letter, whose id is another one.
    """
    owner = redrives_name(name) if isinstance(event, RedrivenEvent) else name
    return f"{event.tenant}:{event.device}:{stage}/{owner}:{event.position_seq}"


def letter_headers(
    event: Event, stage: Stage, name: str, error: str, detail: str
) -> Mapping[str, str]:
    """The letter's headers."""
    copied = {
        line.partition(b":")[0].decode(): line.partition(b":")[2].strip().decode()
        for line in event.headers.split(b"\r\n")
        if line.lower().startswith(_COPIED)
    }
    return (
        {"ce-type": event.type}
        | copied
        | {
            "Nats-Msg-Id": letter_id(event, stage, name),
            "Tidegate-Stage": stage,
            "Tidegate-Consumer": name,
            SEQ_HEADER: str(event.stream_seq),
            STORED_HEADER: str(event.stored_at_ns),
            "Tidegate-Error": error,
            "Tidegate-Detail": quote(detail[:_DETAIL_CHARS_MAX], safe=_SAFE),
        }
    )


def seq_of_letter(message_id: str) -> int:
    """The sequence at the end of an id, such as that of the event which a letter holds; else 0."""
    seq = message_id.rpartition(":")[2]
    return int(seq) if seq.isdecimal() else 0
