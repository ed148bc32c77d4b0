"""Dead letters of consumers: the event's bytes, its `ce-*` headers, and what was wrong with it."""

from collections.abc import Mapping
from typing import Final, Literal
from urllib.parse import quote

from gateway.events.event import Event

Stage = Literal["sink", "rule"]

_DETAIL_CHARS_MAX: Final = 500
_SAFE: Final = " $.,:;'`()[]{}<>=/-_\""
"""What a header may hold as it is; everything else is percent-encoded, line ends above all."""


def letter_subject(event: Event, stage: Stage, name: str) -> str:
    """Where the letter of an event goes."""
    return f"deadletters.{event.tenant}.{event.device}.{stage}.{name}"


def letter_id(event: Event, stage: Stage, name: str) -> str:
    """`Nats-Msg-Id` of the letter: the same however often it is written."""
    return f"{event.tenant}:{event.device}:{stage}/{name}:{event.stream_seq}"


def letter_headers(
    event: Event, stage: Stage, name: str, error: str, detail: str
) -> Mapping[str, str]:
    """The letter's headers."""
    copied = {
        line.partition(b":")[0].decode(): line.partition(b":")[2].strip().decode()
        for line in event.headers.split(b"\r\n")
        if line.lower().startswith((b"ce-", b"traceparent:"))
    }
    return copied | {
        "Nats-Msg-Id": letter_id(event, stage, name),
        "Tidegate-Stage": stage,
        "Tidegate-Consumer": name,
        "Tidegate-Stream-Seq": str(event.stream_seq),
        "Tidegate-Error": error,
        "Tidegate-Detail": quote(detail[:_DETAIL_CHARS_MAX], safe=_SAFE),
    }


def seq_of_letter(message_id: str) -> int:
    """The sequence in EVENTS of the event which the letter with this id holds; 0 for other ids."""
    seq = message_id.rpartition(":")[2]
    return int(seq) if seq.isdecimal() else 0
