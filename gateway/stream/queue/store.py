"""The stream COMMANDS as the queue uses it: look-ups by its leader, compare-and-set, deletion.

Look-ups go to the leader, never to a replica: one that is behind would call a new entry deleted.
Facts that are written in one moment share a batch (`batches.py`).
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from gateway.stream.api_error import ApiError
from gateway.stream.errors import FactConflict, StoreAway
from gateway.stream.lanes.encoding import Publication, encode_atomic, encode_plain, publication
from gateway.stream.link.client import LinkClient
from gateway.stream.names import COMMANDS
from gateway.stream.provisioning.provision import ATOMIC_SINCE, server_version
from gateway.stream.queue.batches import FactBatches
from gateway.stream.queue.facts import (
    DeviceKey,
    Entry,
    Fact,
    Stored,
    encode,
    read_entry,
    read_fact,
    status_subject,
)
from gateway.stream.queue.status import Status

_ANSWER_S: Final = 5.0
_NO_MESSAGE: Final = 10037
_WRONG_SEQUENCE: Final = 10071
_DELETED: Final = (_NO_MESSAGE, 10043, 10057)
"""Of a deletion: the message is not there."""
_BATCH_ID_BYTES: Final = 64
"""The longest name of a batch that the server takes."""
_GET: Final = f"$JS.API.STREAM.MSG.GET.{COMMANDS}"
_DELETE: Final = f"$JS.API.STREAM.MSG.DELETE.{COMMANDS}"


class _Message(Struct):
    seq: int
    data: bytes = b""
    hdrs: bytes = b""


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
        self._batches = FactBatches(self, time.monotonic)
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
        return None if message is None else read_entry(message.data, message.hdrs)

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
        return await self._batches.write(self._message_of(key, command_id, fact, after))

    def _message_of(self, key: DeviceKey, command_id: str, fact: Fact, after: int) -> Publication:
        """The message of a fact that stands behind the one at `after`."""
        tenant, device = key
        message_id = f"{tenant}:{device}:{command_id}:{fact.status}:{after}.{self._node}"
        subject = status_subject(key, command_id)
        return _behind(subject, encode(fact), f"{message_id}.{fact.fence}", after)

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
        return await self._batches.write(_behind(subject, data, message_id, after))

    async def append_one(self, message: Publication) -> int:
        """
        Raises:
            FactConflict: its subject has another last message than it expects.
            StoreAway: whether it is stored is not known.
        """
        answer = await self._publish(message)
        if answer.error is None:
            return answer.seq
        if answer.error.err_code == _WRONG_SEQUENCE:
            raise FactConflict
        raise StoreAway(answer.error.description)

    async def _publish(self, message: Publication) -> _Answer:
        """Publish one message, and wait for its PubAck or error."""
        number, reply = self._expect()
        return await self._answer(number, encode_plain(message, reply))

    async def append_all(self, messages: Sequence[Publication]) -> int | None:
        """
        Raises:
            StoreAway: whether they are stored is not known.
        """
        client = self.client
        if client is None or server_version(client) < ATOMIC_SINCE:
            return None
        number, reply = self._expect()
        answer = await self._answer(
            number, encode_atomic(messages, reply[-_BATCH_ID_BYTES:], reply)
        )
        return None if answer.error is not None else answer.seq

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
        number, reply = self._expect()
        if headers:
            sizes = b"%d %d" % (len(headers), len(headers) + len(payload))
            line = b"HPUB %b %b %b\r\n" % (subject.encode(), reply, sizes)
        else:
            line = b"PUB %b %b %d\r\n" % (subject.encode(), reply, len(payload))
        return await self._answer(number, b"%b%b%b\r\n" % (line, headers, payload))

    def _expect(self) -> tuple[bytes, bytes]:
        """The number of a new question, and where its answer goes.

        Raises:
            StoreAway: there is no connection.
        """
        if self.client is None:
            raise StoreAway("there is no connection to NATS")
        number = b"%d" % next(self._numbers)
        return number, b"%b.%b" % (self._inbox.encode(), number)

    async def _answer(self, number: bytes, question: bytes) -> _Answer:
        """Ask, and wait for the answer.

        Raises:
            StoreAway: the answer is not known.
        """
        loop = asyncio.get_running_loop()
        future = self._waiting[number] = loop.create_future()
        # Not `asyncio.timeout`, which costs four times as much.
        timer = loop.call_later(_ANSWER_S, _give_up, future)
        if not self._outgoing:
            loop.call_soon(self._flush)
        self._outgoing.append(question)
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


def _behind(subject: str, data: bytes, message_id: str, after: int) -> Publication:
    lines = f"Nats-Msg-Id:{message_id}\r\nNats-Expected-Last-Subject-Sequence:{after}\r\n"
    return publication(COMMANDS, subject.encode(), lines.encode(), data)


def _give_up(future: asyncio.Future[bytes]) -> None:
    if not future.done():
        future.set_exception(StoreAway(f"no answer in {_ANSWER_S:g} s"))
