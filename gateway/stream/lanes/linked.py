"""Linked batches as NATS protocol commands: each message but the first names the one before it.

The server stores a message only if the one that it names is the last of its stream. So nobody
else's message can come between, and if the stream has grown by as many messages as the batch has,
all of them are stored. Only the first and the last one cost an answer. Pure.

The messages between these two begin with `NATS/1.0 200`. Behind a plain `NATS/1.0` nats-server
looks through the lines of each message for the headers of its own message traces
(`genHeaderMapIfTraceHeadersPresent` in its msgtrace.go, 2.15), which costs a tenth of all that it
does for the message. It takes the status away before it stores the message (since 2.14, and linked
batches need that version). A message with a `traceparent` begins plainly, so that an operator's
account can have it traced.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from msgspec import UNSET

from gateway.stream.lanes.batch import Item, Run, count_of
from gateway.stream.lanes.encoding import (
    EXPECTED,
    HEADERS_SIZES,
    ID_AT,
    UNSEEN_BYTES,
    Envelope,
    pieces_of,
)

_LINK: Final = b"Nats-Expected-Last-Msg-Id:"
_STATUS: Final = b" 200"
_UNTRACED: Final = b"\r\nNATS/1.0%b\r\n%b" % (_STATUS, _LINK)
"""What is between the command line of a message and the id that it names."""
_TRACED: Final = _UNTRACED.replace(_STATUS, b"")
_SIZE_MAX: Final = 4_095
"""The largest size of a message whose text is kept."""


def _size_line(size: int) -> bytes:
    return b"%d%b" % (size, _UNTRACED)


_SIZES: Final = [_size_line(size) for size in range(_SIZE_MAX + 1)]
_MORE_BYTES: Final = len(_STATUS) + len(_LINK)
"""Bytes of an untraced message beside its own headers, its payload and the id that it names."""


def linked_parts(items: Sequence[Item], reply: bytes, messages: int) -> Iterator[bytes]:
    """A linked batch in several parts: the server reads one while the next is encoded.

    Args:
        items: of one stream, in order; two messages at least.
        reply: where to answer the first and the last one; their places are added as a token.
        messages: of a part, or a few more.
    """
    batch = _LinkedBatch(items, reply)
    for item in items:
        batch.add(item)
        if batch.unsent >= messages:
            yield batch.take()
    if batch.unsent:
        yield batch.take()


class _LinkedBatch:
    """A linked batch while it is encoded."""

    __slots__ = ("_last", "_link", "_pieces", "_place", "_reply", "unsent")

    def __init__(self, items: Sequence[Item], reply: bytes) -> None:
        self._last = count_of(items) - 1
        self._reply = reply
        self._pieces: list[bytes] = []
        self._place = 0
        self._link = b""  # the id of the message before, with its line end
        self.unsent = 0
        """Messages that were encoded and not taken."""

    def add(self, item: Item) -> None:
        """Encode the next message, or those of a run."""
        if isinstance(item, Run):
            self._add_run(item)
        elif self._place in (0, self._last):
            self._add_answered(item.envelope)
        else:
            self._add_named(item.envelope, traced=item.trace is not None)

    def take(self) -> bytes:
        """What was encoded since the last call."""
        part, self._pieces, self.unsent = b"".join(self._pieces), [], 0
        return part

    def _add_answered(self, message: Envelope) -> None:
        """The first or the last message of the batch."""
        lines = (_LINK + self._link if self._link else b"") + EXPECTED[message.stream]
        whole = b"%b.%d " % (self._reply, self._place)
        self._pieces += pieces_of(message, whole, lines)
        self._added(message)

    def _add_named(self, message: Envelope, *, traced: bool = False) -> None:
        """A message between these two."""
        body, link = message.body, self._link
        headers_bytes = message.headers_bytes + _MORE_BYTES + len(link)
        size = len(body) + UNSEEN_BYTES + _MORE_BYTES + len(link)
        if traced:
            headers_bytes -= len(_STATUS)
            line = b"%d" % (size - len(_STATUS)) + _TRACED
        else:
            line = _SIZES[size] if size <= _SIZE_MAX else _size_line(size)
        self._pieces += (message.command, HEADERS_SIZES[headers_bytes], line, link, body)
        self._added(message)

    def _added(self, message: Envelope) -> None:
        body = message.body
        self._link = body[ID_AT : body.index(b"\r\n") + 2]
        self._place += 1
        self.unsent += 1

    def _add_run(self, run: Run) -> None:
        """The first message names one of another frame. The last one may have an answer."""
        first, count = run.envelope(0), len(run.messages)
        ends = self._place + count - 1 == self._last
        if self._place:
            self._add_named(first)
        else:
            self._add_answered(first)
        self._add_between(run, count - 1 if ends else count)
        if ends:
            self._add_answered(run.envelope(-1))

    def _add_between(self, run: Run, end: int) -> None:
        """The messages of a run from the second on, which have no answers."""
        messages, headers = run.messages[1:end], run.headers
        if not messages:
            return
        pieces, sizes = self._pieces, _SIZES
        prefix, middle = headers.id_prefix, headers.middle
        to_id = b"\r\n" + headers.id_line
        number = b"%d" % run.messages[0].seq
        kind, time, changes_at = "", None, 0
        for message in messages:
            before, seq, data = number, message.seq, message.data
            number = b"%d" % seq
            if seq >= changes_at or message.time is not time or message.type != kind:
                kind, time, changes_at = message.type, message.time, _length_changes(seq)
                given = run.received_at if time is UNSET else time
                command, end_of_headers, headers_bytes = headers.shared(kind, given)
                headers_bytes += _MORE_BYTES + len(prefix) + len(before) + 2 + 2 * len(number)
                command = b"%b%d " % (command, headers_bytes)
            size = headers_bytes + len(data)
            line = sizes[size] if size <= _SIZE_MAX else _size_line(size)
            pieces += (
                command, line, prefix, before, to_id, number, middle, number, end_of_headers, data,
                b"\r\n",
            )  # fmt: skip
        self._link = b"%b%b\r\n" % (prefix, number)
        self._place += len(messages)
        self.unsent += len(messages)


def _length_changes(seq: int) -> int:
    """The next seq at which this one, or the one before it, has more digits."""
    more = 10 ** len(str(seq))
    return seq + 1 if seq * 10 == more else more
