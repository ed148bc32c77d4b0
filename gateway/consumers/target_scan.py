"""Reads a stream to find out which events of a consumer, or letters of a redrive, it holds."""

from collections.abc import Sequence
from functools import partial
from typing import Final

from gateway.consumers.stored_now import stored_now
from gateway.events.letters import seq_of_letter
from gateway.stream.reading.reader import Link

ID_HEADER: Final = b"Nats-Msg-Id"


async def delivered_behind(
    link: Link,
    stream: str,
    subjects: Sequence[str],
    middle: str,
    *,
    mark: int,
    after_seq: int = 0,
    header: bytes = ID_HEADER,
) -> set[int]:
    """The last parts of the ids that hold `middle`, such as `:rule/low:`.

    Args:
        link: the connection.
        stream: where to look.
        subjects: filters there.
        middle: what such an id holds.
        mark: the last sequence of the stream that is known to be settled.
        after_seq: what is at or below it does not matter.
        header: which holds the ids.

    Raises:
        StreamMissing: there is no such stream.
        nats.errors.Error: JetStream does not answer.
    """
    found: set[int] = set()
    make = partial(_value_of, header + b":")
    async for message_id in stored_now(link, stream, subjects, make, after=mark):
        if middle in message_id and (seq := seq_of_letter(message_id)) > after_seq:
            found.add(seq)
    return found


def _value_of(
    line: bytes, _subject: str, headers: bytes, _data: bytes, _seq: int, _stored_ns: int
) -> str:
    start = headers.find(line)
    if start < 0:
        return ""
    return headers[start + len(line) : headers.index(b"\r\n", start)].strip().decode()
