"""Reads stored messages: the iterator behind `tidegate tail`."""

import asyncio
import enum
import random
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import msgspec

from gateway import tasks
from gateway.stream.errors import StreamChanged
from gateway.stream.link.client import LinkClient
from gateway.stream.names import DEADLETTERS, EVENTS
from gateway.stream.provisioning.inspection import stream_facts
from gateway.stream.reading.reader import Link, Make, StartAt, StreamReader

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ROOM_MESSAGES: Final = 1_000
_ROOM_BYTES: Final = 8 << 20

T = TypeVar("T")
Where = Callable[[str, bytes, bytes, int, int], bool]


@dataclass(frozen=True, slots=True)
class ReplayFilter:
    """What to read. A member that is None excludes nothing. `since` None begins at the start."""

    tenant: str | None = None
    device: str | None = None
    message_type: str | None = None
    since: datetime | None = None
    new_only: bool = False
    """Begin with the first message that is stored from now on."""
    dead_letters: bool = False
    until: datetime | None = None
    """The first message stored at this time or later ends the reading."""
    where: Where | None = None
    """Whether to show a message: takes subject, headers, data, sequence and Unix nanoseconds."""

    @property
    def stream(self) -> str:
        return DEADLETTERS if self.dead_letters else EVENTS

    @property
    def subjects(self) -> list[str]:
        """Filters for the server. Letters of consumers have subjects below those of the gateway."""
        prefix = f"{self.stream.lower()}.{self.tenant or '*'}.{self.device or '*'}"
        if self.dead_letters:
            return [prefix, f"{prefix}.>"]
        return [f"{prefix}.{self.message_type or '>'}"]


def replay(
    link: Link, wanted: ReplayFilter, *, follow: bool, rng: random.Random
) -> AsyncGenerator[bytes, None]:
    """Stored messages as one JSON line each; as `replay_as` in everything else."""
    return replay_as(render, link, wanted, follow=follow, rng=rng)


async def replay_as(
    make: Make[T], link: Link, wanted: ReplayFilter, *, follow: bool, rng: random.Random
) -> AsyncGenerator[T, None]:
    """Stored messages in stream order. A lost connection loses none.

    Args:
        make: makes the item of a message.
        link: to NATS.
        wanted: what to read.
        follow: continue with new messages; else stop at the end of the stream.
        rng: source of jitter.

    Raises:
        StreamMissing: there is no such stream.
        StreamChanged: the stream was made anew, or messages at its end are gone.
    """
    reader = StreamReader(
        link,
        wanted.stream,
        wanted.subjects,
        start=_Beginning(wanted).of,
        make=_item_of(wanted, make),
        room_messages=_ROOM_MESSAGES,
        room_bytes=_ROOM_BYTES,
        rng=rng,
    )
    running = asyncio.create_task(reader.run(), name="replay")
    begun = asyncio.create_task(reader.begun.wait(), name="replay-begun")
    arrived: asyncio.Task[bool] | None = None
    try:
        await asyncio.wait({running, begun}, return_when=asyncio.FIRST_COMPLETED)
        while True:
            if running.done():
                await running  # raises the failure of the reader
            for item in reader.take(_ROOM_MESSAGES, _ROOM_BYTES):
                if item is _Unwanted.TOO_LATE:
                    return
                if item is not _Unwanted.NO_MATCH:
                    yield item
            if not follow and not reader.pending and not len(reader):
                return
            arrived = asyncio.create_task(reader.arrived.wait(), name="replay-arrived")
            await asyncio.wait({running, arrived}, return_when=asyncio.FIRST_COMPLETED)
            await tasks.end(arrived)
    finally:
        await tasks.end(arrived, begun, running)


def unix_ns(moment: datetime) -> int:
    """Unix nanoseconds. Integers are exact; a float of that size is off by a hundred."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1_000


class _Unwanted(enum.Enum):
    """Why a message is not handed out."""

    NO_MATCH = enum.auto()
    TOO_LATE = enum.auto()


def _item_of(wanted: ReplayFilter, make: Make[T]) -> Make[T | _Unwanted]:
    until_ns = None if wanted.until is None else unix_ns(wanted.until)
    where = wanted.where

    def item(
        subject: str, headers: bytes, data: bytes, stream_seq: int, stored_ns: int
    ) -> T | _Unwanted:
        if until_ns is not None and stored_ns >= until_ns:
            return _Unwanted.TOO_LATE
        if where is not None and not where(subject, headers, data, stream_seq, stored_ns):
            return _Unwanted.NO_MATCH
        return make(subject, headers, data, stream_seq, stored_ns)

    return item


class _Beginning:
    """Where a consumer begins: after the last message that was read, or where the filter says."""

    def __init__(self, wanted: ReplayFilter) -> None:
        self._wanted = wanted
        self._seq = 0
        self._created = ""

    async def of(self, client: LinkClient, accepted: int) -> StartAt:
        """
        Raises:
            StreamMissing: there is no such stream.
            StreamChanged: it is not the stream that was read before.
        """
        facts = await stream_facts(client, self._wanted.stream)
        self._created = self._created or facts.created
        if facts.created != self._created or facts.last_seq < accepted:
            raise StreamChanged(
                f"stream {self._wanted.stream} was made anew, or went back to message"
                f" {facts.last_seq}: messages up to {accepted}, which were read, are gone"
            )
        # Decide once where "from now on" begins, or a lost connection would skip new messages.
        if self._wanted.new_only and not self._seq:
            self._seq = facts.last_seq + 1
        if accepted or self._seq:
            return StartAt(seq=max(accepted + 1, self._seq))
        return StartAt(time=self._wanted.since)


def render(subject: str, headers: bytes, data: bytes, stream_seq: int, stored_ns: int) -> bytes:
    """A stored message as one line of JSON: its place, what its headers say, its data.

    Args:
        subject: of the message.
        headers: the header block, as NATS writes it.
        data: the payload.
        stream_seq: its sequence in the stream.
        stored_ns: when it was stored, in Unix nanoseconds.
    """
    found = _headers(headers)
    tokens = subject.split(".")
    outbox, _, seq = found.get("ce-id", "").rpartition(":")
    stored = datetime.fromtimestamp(stored_ns / 1e9, UTC)
    line: dict[str, Any] = {
        "stream_seq": stream_seq,
        "tenant": tokens[1],
        "device": tokens[2],
        "type": found.get("ce-type") or ".".join(tokens[3:]) or None,
        "outbox": outbox or found.get("Tidegate-Outbox"),
        "seq": _number(seq or found.get("Tidegate-Seq", "")),
        "time": found.get("ce-time"),
        "stored": stored.isoformat(),
    }
    if "Tidegate-Error" in found:
        line["stage"] = found.get("Tidegate-Stage")
        line["consumer"] = found.get("Tidegate-Consumer")
        line["error"] = found["Tidegate-Error"]
        line["detail"] = found.get("Tidegate-Detail")
        line["original"] = data.decode(errors="replace")
    else:
        line["data"] = _json(data)
    return msgspec.json.encode({name: value for name, value in line.items() if value is not None})


def _headers(block: bytes) -> dict[str, str]:
    lines = block.decode(errors="replace").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if ":" in line)
    return {name: value.strip() for name, _, value in pairs}


def _number(text: str) -> int | None:
    """The seq, or None: a message that another program stored may have none."""
    return int(text) if text.isascii() and text.isdecimal() else None


def _json(data: bytes) -> Any:
    """The payload as it is, or as a string if it is no JSON."""
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return data.decode(errors="replace")
    return msgspec.Raw(data)
