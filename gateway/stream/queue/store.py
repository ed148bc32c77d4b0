"""The stream COMMANDS as the queue uses it: look-ups by its leader, compare-and-set, deletion.

Look-ups go to the leader, never to a replica: one that is behind would call a new entry deleted.
"""

import asyncio
import contextlib
import itertools
from typing import Final

import msgspec
from msgspec import Struct

from gateway.stream.api_error import ApiError
from gateway.stream.errors import FactConflict, StoreAway
from gateway.stream.link.client import LinkClient
from gateway.stream.names import COMMANDS
from gateway.stream.queue.facts import (
    DeviceKey,
    Entry,
    Fact,
    Status,
    Stored,
    encode,
    read_entry,
    read_fact,
    status_subject,
)

_ANSWER_S: Final = 5.0
_NO_MESSAGE: Final = 10037
_WRONG_SEQUENCE: Final = 10071
_DELETED: Final = (_NO_MESSAGE, 10043, 10057)
"""Of a deletion: the message is not there."""
_GET: Final = f"$JS.API.STREAM.MSG.GET.{COMMANDS}"
_DELETE: Final = f"$JS.API.STREAM.MSG.DELETE.{COMMANDS}"


class _Message(Struct):
    seq: int
    data: bytes = b""


class _Answer(Struct):
    """Of a look-up, a deletion or a publish."""

    message: _Message | None = None
    seq: int = 0
    error: ApiError | None = None


_decode = msgspec.json.Decoder(_Answer).decode


class CommandStore:
    """Asks over the node's connection. Answers come back by number."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._client: LinkClient | None = None
        self._inbox = ""
        self._numbers = itertools.count()
        self._waiting: dict[bytes, asyncio.Future[bytes]] = {}
        self._outgoing: list[bytes] = []
        """What is asked in this turn of the loop. It goes out in one write, because a system call
        for each question is half of what a question costs.
        """

    @property
    def client(self) -> LinkClient | None:
        """The live connection, or None."""
        client = self._client
        return client if client is not None and client.is_connected else None

    async def on_up(self, client: LinkClient) -> None:
        """Ask on a fresh connection from now on.

        Raises:
            nats.errors.Error: the connection is lost.
        """
        inbox = client.new_inbox()
        await client.subscribe_raw(f"{inbox}.*", self._on_answer)
        await client.flush()  # what is asked is written at once, and must not overtake this
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(StoreAway("the connection to NATS was lost"))
        self._outgoing.clear()
        self._client, self._inbox = client, inbox

    async def entry(self, seq: int) -> Entry | None:
        """
        Raises:
            EntryError: it can be given to no device.
            StoreAway: the answer is not known.
        """
        message = await self._look({"seq": seq})
        return None if message is None else read_entry(message.data)

    async def last(self, key: DeviceKey, command_id: str) -> Stored | None:
        """
        Raises:
            StoreAway: the answer is not known.
        """
        found = await self.read(status_subject(key, command_id))
        if found is None:
            return None
        seq, data = found
        try:
            return Stored(seq, read_fact(data))
        except ValueError:  # somebody else writes there: nobody is given this command
            return Stored(seq, Fact(Status.FAILED, "", reason="unreadable"))

    async def write(self, key: DeviceKey, command_id: str, fact: Fact, after: int) -> int:
        """
        Raises:
            FactConflict: another fact stands there.
            StoreAway: whether it is stored is not known.
        """
        tenant, device = key
        message_id = f"{tenant}:{device}:{command_id}:{fact.status}:{after}.{self._node}"
        subject = status_subject(key, command_id)
        return await self.append(subject, encode(fact), f"{message_id}.{fact.fence}", after)

    async def read(self, subject: str) -> tuple[int, bytes] | None:
        """Sequence and payload of the last message of a subject.

        Raises:
            StoreAway: the answer is not known.
        """
        message = await self._look({"last_by_subj": subject})
        return None if message is None else (message.seq, message.data)

    async def append(self, subject: str, data: bytes, message_id: str, after: int) -> int:
        """Store a message behind the one at `after` (0: the first one). Returns its sequence.

        Raises:
            FactConflict: another message stands there.
            StoreAway: whether it is stored is not known.
        """
        headers = (
            f"NATS/1.0\r\nNats-Msg-Id:{message_id}\r\n"
            f"Nats-Expected-Last-Subject-Sequence:{after}\r\n"
            f"Nats-Expected-Stream:{COMMANDS}\r\n\r\n"
        ).encode()
        answer = await self._ask(subject, data, headers)
        if answer.error is None:
            return answer.seq
        if answer.error.err_code == _WRONG_SEQUENCE:
            raise FactConflict
        raise StoreAway(answer.error.description)

    async def delete(self, seq: int) -> None:
        """
        Raises:
            StoreAway: whether it is deleted is not known.
        """
        # Without `no_erase` the server overwrites the bytes first, which costs a write more.
        answer = await self._ask(_DELETE, encode({"seq": seq, "no_erase": True}))
        if answer.error is not None and answer.error.err_code not in _DELETED:
            raise StoreAway(answer.error.description)

    async def _look(self, wanted: dict[str, int | str]) -> _Message | None:
        answer = await self._ask(_GET, encode(wanted))
        if answer.error is None:
            return answer.message
        if answer.error.err_code == _NO_MESSAGE:
            return None
        raise StoreAway(answer.error.description)

    async def _ask(self, subject: str, payload: bytes, headers: bytes = b"") -> _Answer:
        client = self.client
        if client is None:
            raise StoreAway("there is no connection to NATS")
        number, loop = b"%d" % next(self._numbers), asyncio.get_running_loop()
        future = self._waiting[number] = loop.create_future()
        # Not `asyncio.timeout`, which costs four times as much.
        timer = loop.call_later(_ANSWER_S, _give_up, future)
        reply = f"{self._inbox}.{number.decode()}"
        if headers:
            line = f"HPUB {subject} {reply} {len(headers)} {len(headers) + len(payload)}\r\n"
        else:
            line = f"PUB {subject} {reply} {len(payload)}\r\n"
        if not self._outgoing:
            loop.call_soon(self._flush)
        self._outgoing.append(b"%s%s%s\r\n" % (line.encode(), headers, payload))
        try:
            return _decode(await future)
        except msgspec.DecodeError as exc:
            raise StoreAway(f"the answer cannot be read: {exc}") from None
        finally:
            timer.cancel()
            del self._waiting[number]

    def _flush(self) -> None:
        """Send what was asked in this turn of the loop. What is lost has no answer."""
        questions, self._outgoing = b"".join(self._outgoing), []
        client = self.client
        if questions and client is not None:
            with contextlib.suppress(RuntimeError, OSError):  # the transport is closing
                client.write(questions)

    def _on_answer(self, subject: bytes, _reply: bytes, data: bytes, headers: bytes | None) -> None:
        future = self._waiting.get(subject.rpartition(b".")[2])
        if future is None or future.done():
            return
        if headers is not None and not data:
            future.set_exception(StoreAway("no stream answers"))
        else:
            future.set_result(data)


def _give_up(future: asyncio.Future[bytes]) -> None:
    if not future.done():
        future.set_exception(StoreAway(f"no answer in {_ANSWER_S:g} s"))
