"""Letters of rules and sinks on their way back: messages of the stream REDRIVES as events.

A letter of a rule or sink is sent again to that one consumer, not to EVENTS, where every consumer
would read it. It is still the same event: it keeps `ce-id`, its sequence in EVENTS and the time at
which it was stored there, so the ids that its consumer derives stay what they were.
"""

from typing import Final

from gateway.events.event import Event

REDRIVES: Final = "REDRIVES"
REDRIVES_SUBJECTS: Final = ("redriven.*", "redrives.>")
SEQ_HEADER: Final = "Tidegate-Stream-Seq"
STORED_HEADER: Final = "Tidegate-Stored-Ns"
COUNT_HEADER: Final = "Tidegate-Redrives"


class RedrivenEvent(Event, frozen=True, gc=False):
    """An event that its consumer has failed on before.

    `stream_seq` and `stored_at_ns` are those of EVENTS; `redrive_seq` and `redrive_id` are those of
    its message in REDRIVES, where the consumer keeps a second position.
    """

    redrive_seq: int
    redrive_id: str

    @property
    def position_seq(self) -> int:
        return self.redrive_seq

    @property
    def position_id(self) -> str:
        return self.redrive_id

    @property
    def message_id(self) -> str:
        return f"{self.tenant}:{self.device}:{self.header(b'ce-id')}"


def redrives_name(consumer: str) -> str:
    """What owns the position in REDRIVES. No rule or sink can have this name: it holds a dot."""
    return f"{consumer}.redrives"


def redrives_filter(stage: str, consumer: str) -> str:
    """The subjects of what is sent again to a consumer."""
    return f"redrives.{stage}.{consumer}.*.*"


def redrives_subject(stage: str, consumer: str, tenant: str, device: str) -> str:
    """Where a letter of a consumer goes."""
    return f"redrives.{stage}.{consumer}.{tenant}.{device}"


def redriven_event(
    subject: str, headers: bytes, data: bytes, seq: int, stored_ns: int
) -> RedrivenEvent:
    """Makes the event of a message of REDRIVES."""
    message = Event(subject, headers, data, seq, stored_ns)
    _, _, _, tenant, device = subject.split(".")
    return RedrivenEvent(
        f"events.{tenant}.{device}.{message.header(b'ce-type')}",
        headers,
        data,
        _number(message, SEQ_HEADER),
        _number(message, STORED_HEADER) or stored_ns,
        redrive_seq=seq,
        redrive_id=message.message_id,
    )


def _number(message: Event, header: str) -> int:
    text = message.header(header.encode())
    return int(text) if text.isdecimal() else 0


def seq_of_fact(subject: str, _headers: bytes, _data: bytes, _seq: int, _stored_ns: int) -> int:
    """The letter of which a message `redriven.<letter>` says that it was sent again; 0 for none."""
    seq = subject.rpartition(".")[2]
    return int(seq) if seq.isdecimal() else 0
