"""A batch as NATS protocol commands, by its kind. Pure."""

from collections.abc import Iterator

from gateway.stream.lanes.batch import Batch, Kind, split_all
from gateway.stream.lanes.encoding import encode_atomic, encode_fast, encode_plain
from gateway.stream.lanes.linked import linked_parts


def parts_of(batch: Batch, token: bytes, reply: bytes, messages: int) -> Iterator[bytes]:
    """What is still to be sent of a batch of several messages, in several parts: the server reads
    one while the next is encoded.

    Args:
        batch: to be sent.
        token: its name, to the server and in the subject of its answers.
        reply: where to answer.
        messages: of a part.
    """
    if batch.kind is Kind.LINKED:
        yield from linked_parts(batch.items, reply, messages)
        return
    items = split_all(batch.items)
    for start in range(batch.sent, len(items), messages):
        part = [item.envelope for item in items[start : start + messages]]
        last = start + len(part) == len(items)
        if batch.kind is Kind.ATOMIC:
            yield encode_atomic(part, token, reply if last else None, start + 1)
        elif batch.kind is Kind.FAST:
            yield encode_fast(part, reply, start + 1, commit=last)
        else:
            yield b"".join(
                encode_plain(envelope, b"%s.%d" % (reply, place))
                for place, envelope in enumerate(part, start)
            )


def part_ahead(batch: Batch, token: bytes, first: int) -> bytes:
    """The messages of an atomic batch that are sent ahead, from the one at place `first` on."""
    ahead = [item.envelope for item in split_all(batch.items[first : batch.sent])]
    return encode_atomic(ahead, token, None, first + 1)
