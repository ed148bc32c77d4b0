"""Asks NATS how far an outbox has come in the streams, and what is stored at a sequence.

A device's messages of one outbox are stored in order, in EVENTS or in DEADLETTERS. So the last one
of that outbox in either stream says where it stands, whichever outbox, stage or redrive wrote last:

1. The stream's leader is asked for the device's last message. If it is of that outbox, it is the
   answer for that stream.
2. Otherwise the device's messages are read up to that one, from where they were read last. What was
   found is remembered for each device, so only what came since is read. Any replica may answer
   this, and it may be behind: the answer is complete once the leader's last message is reached.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import msgspec
import nats.errors
import structlog
from msgspec import Struct

from gateway.stream.api_error import ApiError
from gateway.stream.errors import NotAnswered
from gateway.stream.lanes.encoding import Envelope
from gateway.stream.lanes.history import history_of, message_id_of
from gateway.stream.lanes.stored_reads import DeviceRead, DeviceReads, Place, Source, parse_id
from gateway.stream.link.client import LinkClient
from gateway.stream.names import DEADLETTERS, EVENTS

_log = structlog.get_logger(__name__)

_RETRY_S: Final = 1.0
_CHUNKS: Final = 8
"""Chunks that are read at once. A place is taken for each chunk, not for each device: a device with
a long history, which takes many chunks, does not keep the others waiting."""
_BEHIND_S: Final = 0.05
"""A replica that is behind is asked again after this."""
_BEHIND_MAX: Final = 40
"""After so many attempts the leader is asked again: its message may have expired meanwhile."""
_NO_MESSAGE: Final = 10037

_encode = msgspec.json.encode


class _Message(Struct):
    seq: int
    hdrs: bytes = b""


class _WholeMessage(Struct):
    subject: str
    data: bytes = b""


M = TypeVar("M", bound=Struct)


class _Found(Struct, Generic[M]):
    message: M | None = None
    error: ApiError | None = None


_decode = msgspec.json.Decoder(_Found[_Message]).decode
_decode_whole = msgspec.json.Decoder(_Found[_WholeMessage]).decode


_AGAIN: Final = (nats.errors.Error, NotAnswered, TimeoutError)


class StoredSeqs:
    """Asks the streams. Each question waits for its answer: a guess could store a message twice."""

    def __init__(
        self,
        client: Callable[[], LinkClient | None],
        *,
        concurrency: int,
        timeout_s: float,
        rng: random.Random,
        clock: Callable[[], float],
    ) -> None:
        """
        Args:
            client: the live connection, or None.
            concurrency: questions at once.
            timeout_s: how long one attempt waits for its answer, in seconds.
            rng: source of jitter between attempts.
            clock: monotonic seconds, that of the lanes.
        """
        self._client = client
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(concurrency)
        self._chunks = asyncio.Semaphore(_CHUNKS)
        self._rng = rng
        self._clock = clock
        self.reads = DeviceReads()
        """What was read of devices."""
        self.failing = False
        """Whether the last question found no answer. It is asked again."""

    async def last_seq(self, tenant: str, device: str, outbox: str) -> tuple[int, float]:
        """How far an outbox has come.

        Returns:
            The last settled seq, 0 if there is none, and the moment at which nothing beyond was
            stored.
        """
        while True:
            try:
                events, asked_at = await self._last_in(Source(EVENTS, tenant, device), outbox)
                letters, _ = await self._last_in(Source(DEADLETTERS, tenant, device), outbox)
            except _AGAIN as exc:
                await self._pause(exc)
            else:
                return max(events, letters), asked_at

    async def same(self, envelope: Envelope, sequence: int) -> bool:
        """Whether the message at `sequence` has the subject and payload of `envelope`.

        True also if that message is gone, because then there is nothing to compare.
        """
        stored, _ = await self._ask_leader(envelope.stream, {"seq": sequence}, _decode_whole)
        return stored is None or (
            stored.data == envelope.payload and stored.subject.encode() == envelope.subject
        )

    async def _last_in(self, source: Source, outbox: str) -> tuple[int, float]:
        wanted = {"last_by_subj": source.subject}
        message, asked_at = await self._ask_leader(source.stream, wanted, _decode)
        if message is None:
            return 0, asked_at
        last = _place(message)
        found = parse_id(last.message_id, source.tenant, source.device)
        if found is not None and found[0] == outbox:
            return found[1], asked_at
        read = await self._read_up_to(last, source, outbox)
        return read.outboxes.get(outbox, 0), asked_at

    async def _read_up_to(self, last: Place, source: Source, outbox: str) -> DeviceRead:
        """The device's messages up to `last`, on from where they were read before if that message
        is there still.
        """
        read = self.reads.of(source)
        if read.at.sequence >= last.sequence and read.at != last:
            read = DeviceRead()  # the stream was made anew, or went back
        if not read.complete and outbox not in read.outboxes:
            read = DeviceRead()
        behind = 0
        async with history_of(self._live(), source, timeout_s=self._timeout_s) as history:
            while read.at.sequence < last.sequence:
                start = read.at.sequence
                async with self._chunks:
                    chunk = await history.chunk(max(1, start))
                if chunk is None:
                    chunk = await self._two_of_leader(source, max(1, start))
                if start and chunk and chunk[0] != read.at:
                    read = DeviceRead()
                    continue
                fresh = chunk[1:] if start else chunk
                for place in fresh:
                    read.take(place, source, outbox)
                self.reads.keep(source, read)
                if not fresh:
                    behind += 1
                    if behind == _BEHIND_MAX:
                        raise NotAnswered(f"{source.stream}: no replica has {last.sequence}")
                    await asyncio.sleep(_BEHIND_S)
        return read

    async def _two_of_leader(self, source: Source, first: int) -> list[Place]:
        """As `_chunk`, but no more than two: the one at `first`, which was read, and the next."""
        found: list[Place] = []
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

        Asks until there is an answer. Only so many questions are asked at once; others wait.
        """
        subject = f"$JS.API.STREAM.MSG.GET.{stream}"
        async with self._slots:
            while True:
                asked_at = self._clock()
                try:
                    answer = await self._live().request(
                        subject, _encode(wanted), timeout=self._timeout_s
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

    def _live(self) -> LinkClient:
        client = self._client()
        if client is None:
            raise nats.errors.ConnectionClosedError
        return client


def _place(message: _Message) -> Place:
    return Place(message.seq, message_id_of(message.hdrs))


def _message(answer: bytes, decode: Callable[[bytes], _Found[M]]) -> M | None:
    """The message of an answer; None if there is none."""
    try:
        found = decode(answer)
    except msgspec.DecodeError as exc:
        raise NotAnswered(str(exc)) from None
    if found.message is not None:
        return found.message
    if found.error is None:
        raise NotAnswered("neither a message nor an error")
    if found.error.err_code != _NO_MESSAGE:
        raise NotAnswered(found.error.description)
    return None
