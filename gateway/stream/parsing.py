"""nats-py's parser with a short way for messages of a stream that is read in bulk.

nats-py matches each message against two patterns, copies it out of a growing buffer, and awaits two
coroutines for it: 6 us a message (2.16), more than everything else that reading costs. Here a run
of complete messages with headers for `subscribe_raw` is cut from the packet in one loop. All else
(statuses, other subscriptions, PING, errors) goes to nats-py's own parser.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from nats.aio.client import Client
from nats.protocol.parser import AWAITING_CONTROL_LINE, MAX_CONTROL_LINE_SIZE, Parser

RawHandler = Callable[[bytes, bytes, bytes, bytes | None], None]
"""Takes subject, reply, payload and the header block as it came, at once."""

_DELIVERY_WORDS: Final = 6  # HMSG subject sid reply header-bytes all-bytes
_CRLF_BYTES: Final = 2


class BulkParser(Parser):
    """Replaces the parser of one client."""

    def __init__(self, client: Client, handlers: Mapping[int, RawHandler]) -> None:
        """
        Args:
            client: whose messages are parsed.
            handlers: by subscription id; the client adds to it.
        """
        super().__init__(client)
        self._handlers = handlers
        self._wanted_bytes = 0

    def reset(self) -> None:
        super().reset()
        self._wanted_bytes = 0

    def parse(self, data: bytes = b"") -> Awaitable[None]:  # type: ignore[override]  # awaited too
        """Parse what was read from the socket."""
        if not self._handlers or self.state != AWAITING_CONTROL_LINE:
            return super().parse(data)
        if self.buf:
            self.buf.extend(data)
            if len(self.buf) < self._wanted_bytes:
                return _nothing()
            data = bytes(self.buf)
            self.buf.clear()
        self._wanted_bytes = 0
        place = self._deliver(data)
        if place == len(data):
            return _nothing()
        rest = data[place:]
        if self._wanted_bytes or (b"\r\n" not in rest and len(rest) < MAX_CONTROL_LINE_SIZE):
            self.buf.extend(rest)
            return _nothing()
        return super().parse(rest)

    def _deliver(self, data: bytes) -> int:
        """Hand out complete messages from the beginning of `data`; where the rest begins."""
        handlers = self._handlers
        place = 0
        while (line_end := data.find(b"\r", place)) >= 0:
            words = data[place:line_end].split(b" ")
            if len(words) != _DELIVERY_WORDS or words[0] != b"HMSG":
                break
            handler = handlers.get(int(words[2]))
            if handler is None:
                break
            start = line_end + _CRLF_BYTES
            middle, end = start + int(words[4]), start + int(words[5])
            if end + _CRLF_BYTES > len(data):
                self._wanted_bytes = end + _CRLF_BYTES - place
                break
            handler(words[1], words[3], data[middle:end], data[start:middle])
            place = end + _CRLF_BYTES
        return place


async def _nothing() -> None:
    """For the caller, which awaits each call."""
