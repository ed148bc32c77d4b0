"""Reads what a device has stored, chunk by chunk: batched direct gets (ADR-31).

Any replica of the stream answers them, and it may be behind the leader. Only the id of each
message is of interest, so its headers are searched as they came. nats-py would put each message
into a queue and make a dictionary of its headers.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from gateway.stream.errors import NotAnswered
from gateway.stream.header_block import header_of
from gateway.stream.lanes.stored_reads import Place, Source
from gateway.stream.link.client import LinkClient

_CHUNK_MESSAGES: Final = 250
_CHUNK_BYTES: Final = 1_048_576
_STATUS: Final = b"NATS/1.0 "  # a message has its first header behind "NATS/1.0"
_STATUS_DIGITS: Final = slice(9, 12)
_NOTHING_MORE: Final = (b"204", b"404")
_NO_DIRECT_GETS: Final = b"503"
_SEQUENCE: Final = b"Nats-Sequence"
_PENDING: Final = b"\r\nNats-Num-Pending:"
_MESSAGE_ID: Final = b"Nats-Msg-Id"

_encode = msgspec.json.encode


def message_id_of(headers: bytes) -> str:
    """The `Nats-Msg-Id` of a block of headers, empty without one."""
    return header_of(headers, _MESSAGE_ID).decode(errors="replace")


class History:
    """The messages of one device in one stream. One chunk is read at a time."""

    __slots__ = ("_client", "_ended", "_inbox", "_places", "_source", "_timeout_s")

    def __init__(self, client: LinkClient, source: Source, inbox: str, timeout_s: float) -> None:
        self._client = client
        self._source = source
        self._inbox = inbox
        self._timeout_s = timeout_s
        self._places: list[Place] = []
        self._ended: asyncio.Future[bool] | None = None

    async def chunk(self, first: int) -> list[Place] | None:
        """The next messages, from sequence `first` on: some hundreds, or all that are left.

        Returns:
            None if the stream has no direct gets, or this user may not use them.

        Raises:
            NotAnswered: the server answered something unexpected.
            TimeoutError: the answer did not come whole in time.
        """
        places: list[Place] = []
        self._places = places
        self._ended = ended = asyncio.get_running_loop().create_future()
        wanted = {
            "next_by_subj": self._source.subject,
            "seq": first,
            "batch": _CHUNK_MESSAGES,
            "max_bytes": _CHUNK_BYTES,
        }
        subject = f"$JS.API.DIRECT.GET.{self._source.stream}"
        await self._client.publish(subject, _encode(wanted), reply=self._inbox)
        try:
            async with asyncio.timeout(self._timeout_s):
                return places if await ended else None
        except TimeoutError:
            if places:
                raise
            return None  # a user without the right hears nothing

    def on_message(
        self, _subject: bytes, _reply: bytes, _payload: bytes, headers: bytes | None
    ) -> None:
        """A message of the chunk, or the status that ends it."""
        ended = self._ended
        if ended is None or ended.done() or headers is None:
            return
        if headers.startswith(_STATUS):
            status = headers[_STATUS_DIGITS]
            if status in _NOTHING_MORE:
                ended.set_result(True)
            elif status == _NO_DIRECT_GETS:
                ended.set_result(False)
            else:
                stream, text = self._source.stream, status.decode(errors="replace")
                ended.set_exception(NotAnswered(f"{stream}: direct get answered {text}"))
            return
        self._places.append(Place(int(header_of(headers, _SEQUENCE)), message_id_of(headers)))
        if _PENDING not in headers:
            ended.set_result(True)  # a server that knows no chunks sends one message


@asynccontextmanager
async def history_of(
    client: LinkClient, source: Source, *, timeout_s: float
) -> AsyncIterator[History]:
    """Read a device's history; `timeout_s` is for each chunk, in seconds."""
    inbox = client.new_inbox()
    history = History(client, source, inbox, timeout_s)
    subscription = await client.subscribe_raw(inbox, history.on_message)
    try:
        yield history
    finally:
        await client.unsubscribe_raw(subscription)
