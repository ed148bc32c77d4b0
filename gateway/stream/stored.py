"""How far an outbox has come in the stream, and what is stored at a place in it: asked of NATS.

A device's messages of one outbox are stored in order, in EVENTS or in DEADLETTERS. So the last one
of that outbox in either stream says where it stands, whichever outbox, stage or redrive wrote last:

1. The stream's leader is asked for the device's last message. If it is of that outbox, it is the
   answer for that stream.
2. Otherwise the device's messages are read up to that one, from where they were read last. What was
   found is remembered for each device, so only what came since is read. Any replica may answer
   this, and it may be behind: it has answered once the leader's last message is reached.
"""

import asyncio
import random
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec
import nats.errors
import structlog
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from gateway.stream.encoding import DEADLETTERS, EVENTS, Envelope

_log = structlog.get_logger(__name__)

_RETRY_S: Final = 1.0
_TIMEOUT_S: Final = 5.0
_CHUNK_MESSAGES: Final = 250
_CHUNK_BYTES: Final = 1_048_576
_SCANS: Final = 2
"""Devices whose messages are read at once; all others are only asked for their last one."""
_BEHIND_S: Final = 0.05
"""A replica that is behind is asked again after this."""
_BEHIND_MAX: Final = 40
"""So often. Then the leader is asked again: its last message may have expired meanwhile."""
_DEVICES_MAX: Final = 20_000
_OUTBOXES_MAX: Final = 1_024
"""Remembered for a device. To find one that is forgotten, all is read again."""
_ALL_OUTBOXES_MAX: Final = 100_000
"""Remembered for all devices, some 15 MB. Beyond it, those asked for longest ago are forgotten."""
_NO_MESSAGE: Final = 10037
_MESSAGE_ID: Final = re.compile(rb"^Nats-Msg-Id: ?(.+?)\r$", re.MULTILINE)

_encode = msgspec.json.encode


class _ApiError(Struct):
    err_code: int = 0
    description: str = ""


class _Message(Struct):
    seq: int
    hdrs: bytes = b""


class _WholeMessage(Struct):
    subject: str
    data: bytes = b""


M = TypeVar("M", bound=Struct)


class _Found(Struct, Generic[M]):
    message: M | None = None
    error: _ApiError | None = None


_decode = msgspec.json.Decoder(_Found[_Message]).decode
_decode_whole = msgspec.json.Decoder(_Found[_WholeMessage]).decode


class _NotAnsweredError(Exception):
    """JetStream answered something that is no answer. Never leaves this module: asked again."""


_AGAIN: Final = (nats.errors.Error, _NotAnsweredError, TimeoutError)


class _Source(NamedTuple):
    """A device's messages in one stream."""

    stream: str
    tenant: str
    device: str

    @property
    def subject(self) -> str:
        if self.stream == EVENTS:
            return f"events.{self.tenant}.{self.device}.>"
        return f"deadletters.{self.tenant}.{self.device}"  # letters of consumers are deeper


class _Place(NamedTuple):
    """A message in a stream."""

    sequence: int
    message_id: str


class _Read:
    """A device's messages in one stream, as far as they were read."""

    __slots__ = ("at", "complete", "counted", "outboxes")

    def __init__(self) -> None:
        self.at = _Place(0, "")
        self.complete = True
        """Whether every outbox up to `at` is in `outboxes`."""
        self.outboxes: dict[str, int] = {}
        self.counted = 0
        """How many of them are in the count of all."""

    def take(self, place: _Place, source: _Source, wanted: str) -> None:
        """The next message of the device. `wanted` is an outbox not to be forgotten."""
        if place.sequence <= self.at.sequence:
            return  # two questions about one device read it at the same time
        self.at = place
        found = parse_id(place.message_id, source.tenant, source.device)
        if found is None:
            return
        outbox, seq = found
        self.outboxes.pop(outbox, None)  # the newest last
        self.outboxes[outbox] = seq
        if len(self.outboxes) > _OUTBOXES_MAX:
            del self.outboxes[next(each for each in self.outboxes if each != wanted)]
            self.complete = False


def parse_id(message_id: str, tenant: str, device: str) -> tuple[str, int] | None:
    """Outbox and seq of a `Nats-Msg-Id`; None if it is not of a message this device sent.

    The letter of a reused seq has a fifth part, a digest.
    """
    parts = message_id.split(":")
    if len(parts) not in (4, 5) or parts[:2] != [tenant, device] or not parts[3].isdecimal():
        return None
    return parts[2], int(parts[3])


class StoredSeqs:
    """Asks the streams. Each question waits until it is answered: to guess is to store twice."""

    def __init__(
        self,
        client: Callable[[], Client | None],
        *,
        concurrency: int,
        rng: random.Random,
        clock: Callable[[], float],
    ) -> None:
        """
        Args:
            client: the live connection, or None.
            concurrency: questions at once.
            rng: source of jitter between attempts.
            clock: monotonic seconds, that of the lanes.
        """
        self._client = client
        self._slots = asyncio.Semaphore(concurrency)
        self._scans = asyncio.Semaphore(_SCANS)
        self._rng = rng
        self._clock = clock
        self._reads: OrderedDict[_Source, _Read] = OrderedDict()
        self._outboxes = 0
        """Remembered in all of them."""
        self.failing = False
        """Whether the last question found no answer. It is asked again."""
        self.scanned = 0
        """Messages read because a device's last one did not answer the question."""

    async def last_seq(self, tenant: str, device: str, outbox: str) -> tuple[int, float]:
        """How far an outbox has come.

        Returns:
            The last settled seq, 0 if there is none, and the moment at which nothing beyond was
            stored.
        """
        while True:
            try:
                events, asked_at = await self._last_in(_Source(EVENTS, tenant, device), outbox)
                letters, _ = await self._last_in(_Source(DEADLETTERS, tenant, device), outbox)
            except _AGAIN as exc:
                await self._pause(exc)
            else:
                return max(events, letters), asked_at

    async def same(self, envelope: Envelope, sequence: int) -> bool:
        """Whether the message at `sequence` has the subject and payload of `envelope`.

        True also if it is gone: then nobody can tell.
        """
        stored, _ = await self._ask_leader(envelope.stream, {"seq": sequence}, _decode_whole)
        return stored is None or (
            stored.data == envelope.payload and stored.subject.encode() == envelope.subject
        )

    async def _last_in(self, source: _Source, outbox: str) -> tuple[int, float]:
        wanted = {"last_by_subj": source.subject}
        message, asked_at = await self._ask_leader(source.stream, wanted, _decode)
        if message is None:
            return 0, asked_at
        last = _place(message)
        found = parse_id(last.message_id, source.tenant, source.device)
        if found is not None and found[0] == outbox:
            return found[1], asked_at
        async with self._scans:
            read = await self._read_up_to(last, source, outbox)
        return read.outboxes.get(outbox, 0), asked_at

    async def _read_up_to(self, last: _Place, source: _Source, outbox: str) -> _Read:
        """The device's messages up to `last`, on from where they were read before if that message
        is there still.
        """
        read = self._reads.get(source, _Read())
        if read.at.sequence >= last.sequence and read.at != last:
            read = _Read()  # the stream was made anew, or went back
        if not read.complete and outbox not in read.outboxes:
            read = _Read()
        client = self._live()
        answers = await client.subscribe(client.new_inbox())
        behind = 0
        try:
            while read.at.sequence < last.sequence:
                start = read.at.sequence
                chunk = await self._chunk(client, answers, source, max(1, start))
                if start and chunk and chunk[0] != read.at:
                    read = _Read()
                    continue
                fresh = chunk[1:] if start else chunk
                for place in fresh:
                    read.take(place, source, outbox)
                self.scanned += len(fresh)
                self._keep(source, read)
                if not fresh:
                    behind += 1
                    if behind == _BEHIND_MAX:
                        raise _NotAnsweredError(f"{source.stream}: no replica has {last.sequence}")
                    await asyncio.sleep(_BEHIND_S)
        finally:
            await answers.unsubscribe()
        return read

    def _keep(self, source: _Source, read: _Read) -> None:
        before = self._reads.get(source)
        if before is not None:
            self._outboxes -= before.counted
        self._reads[source] = read
        self._reads.move_to_end(source)
        read.counted = len(read.outboxes)
        self._outboxes += read.counted
        while len(self._reads) > _DEVICES_MAX or (
            self._outboxes > _ALL_OUTBOXES_MAX and len(self._reads) > 1
        ):
            _, forgotten = self._reads.popitem(last=False)
            self._outboxes -= forgotten.counted

    async def _chunk(
        self, client: Client, answers: Subscription, source: _Source, first: int
    ) -> list[_Place]:
        """The device's next messages, from sequence `first` on: so many, or all that are left."""
        wanted = {
            "next_by_subj": source.subject,
            "seq": first,
            "batch": _CHUNK_MESSAGES,
            "max_bytes": _CHUNK_BYTES,
        }
        subject = f"$JS.API.DIRECT.GET.{source.stream}"
        await client.publish(subject, _encode(wanted), reply=answers.subject)
        chunk: list[_Place] = []
        while True:
            try:
                message = await answers.next_msg(timeout=_TIMEOUT_S)
            except nats.errors.TimeoutError:
                if chunk:
                    raise
                return await self._two_of_leader(source, first)  # we may lack that right
            headers: dict[Any, str] = message.headers or {}
            status = headers.get("Status")
            if status in ("204", "404"):  # the chunk has ended, or there is nothing
                return chunk
            if status == "503":  # a stream without direct gets
                return await self._two_of_leader(source, first)
            if status is not None:
                raise _NotAnsweredError(f"{source.stream}: direct get answered {status}")
            chunk.append(_Place(int(headers["Nats-Sequence"]), headers.get("Nats-Msg-Id", "")))
            if "Nats-Num-Pending" not in headers:
                return chunk  # a server that knows no chunks sends one message

    async def _two_of_leader(self, source: _Source, first: int) -> list[_Place]:
        """As `_chunk`, but no more than two: the one at `first`, which was read, and the next."""
        found: list[_Place] = []
        for _ in range(2):
            wanted = {"next_by_subj": source.subject, "seq": first}
            message, _ = await self._ask_leader(source.stream, wanted, _decode)
            if message is None:
                break
            place = _place(message)
            found.append(place)
            first = place.sequence + 1
        return found

    async def _ask_leader(
        self, stream: str, wanted: dict[str, Any], decode: Callable[[bytes], _Found[M]]
    ) -> tuple[M | None, float]:
        """A message as the stream's leader has it, and when it was asked; None if there is none.

        Asks until there is an answer, in one of the places for questions: while nothing answers,
        only so many ask, and the others wait for a place.
        """
        subject = f"$JS.API.STREAM.MSG.GET.{stream}"
        async with self._slots:
            while True:
                asked_at = self._clock()
                try:
                    answer = await self._live().request(
                        subject, _encode(wanted), timeout=_TIMEOUT_S
                    )
                    message = _message(answer.data, decode)
                except _AGAIN as exc:
                    await self._pause(exc)
                else:
                    self.failing = False
                    return message, asked_at

    async def _pause(self, error: Exception) -> None:
        if not self.failing:
            self.failing = True
            _log.warning("look_up_repeated", error=str(error) or type(error).__name__)
        await asyncio.sleep(self._rng.uniform(0, _RETRY_S))

    def _live(self) -> Client:
        client = self._client()
        if client is None:
            raise nats.errors.ConnectionClosedError
        return client


def _place(message: _Message) -> _Place:
    message_id = _MESSAGE_ID.search(message.hdrs)
    text = message_id[1].decode(errors="replace") if message_id is not None else ""
    return _Place(message.seq, text)


def _message(answer: bytes, decode: Callable[[bytes], _Found[M]]) -> M | None:
    """The message of an answer; None if there is none."""
    try:
        found = decode(answer)
    except msgspec.DecodeError as exc:
        raise _NotAnsweredError(str(exc)) from None
    if found.message is not None:
        return found.message
    if found.error is None:
        raise _NotAnsweredError("neither a message nor an error")
    if found.error.err_code != _NO_MESSAGE:
        raise _NotAnsweredError(found.error.description)
    return None
