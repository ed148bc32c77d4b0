"""Delivery to a subject of NATS: exactly once, if a stream holds the subject.

Each derived message has the id `<tenant>:<device>:rule/<name>:<sequence in EVENTS>`. JetStream
drops a repeated id within its duplicate window only, so no repeat relies on that alone: whenever it
is not known what arrived (another process took over, a publish was not answered), the target is
read from the stored mark on, and what is there is not sent again.

    resume: read the target behind the mark -> known sequences -> deliver all but those

Where the stream allows atomic batches, the rules of the process share them (`batch_writer.py`):
`send` hands messages over while those before them are being stored, and `deliver` waits for them.
Once the stream has refused a message of this rule, the rule stores on its own for `ALONE_S`
(`own_batches.py`), so that it does not spoil the batches of the others.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import nats.errors
from msgspec import Struct

from gateway.consumers.delivery.batch_writer import (
    BATCH_BYTES_MAX,
    BATCH_MESSAGES_MAX,
    BatchWriter,
    BatchWriters,
    Parcel,
)
from gateway.consumers.delivery.derived import REDRIVE_HEADER, Derived, Deriver, encode_unstored
from gateway.consumers.delivery.holding import Holder, holder_of, last_seq
from gateway.consumers.delivery.own_batches import OwnBatches
from gateway.consumers.errors import TargetAway
from gateway.consumers.target import Rejected
from gateway.consumers.target_scan import ID_HEADER, delivered_behind
from gateway.events.destinations import NatsDestination
from gateway.events.errors import PickError
from gateway.events.event import Event
from gateway.events.redrives import redrives_name
from gateway.events.rules import Rule
from gateway.stream.errors import StreamMissing
from gateway.stream.link.client import LinkClient
from gateway.stream.reading.reader import Link

ALONE_S: Final = 10.0
"""For so long a rule stores on its own once the stream has refused one of its messages."""
AHEAD: Final = 3
"""Portions that are sent before the first of them is stored: one is committed, one fills the next
batch, and one is being made."""
_FLUSH_S: Final = 5


class _Way(Struct, frozen=True):
    """How messages get there, over one connection."""

    client: LinkClient
    holder: Holder | None
    """The stream that holds the subject, None if none does."""
    writer: BatchWriter | None
    own: OwnBatches | None


class _Sent:
    """A portion of events on its way."""

    __slots__ = ("parcels", "rejected")

    def __init__(self) -> None:
        self.parcels: list[Parcel] = []
        self.rejected: list[Rejected] = []


class NatsDelivery:
    """The target of one rule. Satisfies `Delivery`."""

    def __init__(
        self,
        rule: Rule,
        destination: NatsDestination,
        link: Link,
        guard: Callable[[], None],
        writers: BatchWriters,
        *,
        redrives: bool = False,
        traced: bool = False,
    ) -> None:
        """
        Args:
            rule: what the events file says of it.
            destination: its subject.
            link: the connection.
            guard: raises NotOwner if this process must not write any more.
            writers: of the process.
            redrives: whether events come from REDRIVES.
            traced: whether messages name the span of the rule; see `Deriver`.
        """
        self._name = rule.name
        self._filter = destination.filter
        self._redrives = redrives
        self._link = link
        self._guard = guard
        self._writers = writers
        self._deriver = Deriver(rule, destination, traced=traced)
        self._way: _Way | None = None
        self._known: set[int] = set()
        self._sent: deque[_Sent] = deque()
        self._alone_until = 0.0
        self.mark = 0

    @property
    def finds_again(self) -> bool:
        return self._way is not None and self._way.holder is not None

    @property
    def ahead(self) -> int:
        way = self._way
        return AHEAD if way is not None and way.holder is not None and way.holder.atomic else 1

    async def open(self) -> None:
        client = self._link.client
        if client is None:
            raise TargetAway("NATS is away")
        holder = await holder_of(client, self._name, self._filter)
        if holder is None:
            self._way = _Way(client, None, None, None)
            return
        writer = await self._writers.of(client, holder.stream)
        own = OwnBatches(writer.answers, holder, self._guard, writer.own_gate)
        self._way = _Way(client, holder, writer, own)

    async def begin(self) -> None:
        self._forget_sent()
        self._known = set()
        way = self._open_way()
        if way.holder is not None:
            self.mark = await last_seq(way.client, way.holder.stream)

    async def resume(self, after_seq: int, mark: int) -> None:
        self._forget_sent()
        self._known, self.mark = set(), mark
        way = self._open_way()
        if way.holder is None or way.writer is None:
            return
        await way.writer.answered()  # it may hold messages of the attempt before
        last = await last_seq(way.client, way.holder.stream)
        if last < mark:
            self.mark = 0  # the target was made anew
        try:
            self._known = await delivered_behind(
                self._link,
                way.holder.stream,
                [self._filter],
                f":rule/{redrives_name(self._name) if self._redrives else self._name}:",
                mark=self.mark,
                after_seq=after_seq,
                header=REDRIVE_HEADER if self._redrives else ID_HEADER,
            )
        except (StreamMissing, nats.errors.Error, TimeoutError) as exc:
            raise TargetAway(f"the target cannot be read: {exc}") from exc

    def send(self, events: Sequence[Event]) -> None:
        way, sent = self._open_way(), _Sent()
        parcels = self._made(events, sent.rejected)
        if way.writer is not None and self._shares():
            for parcel in parcels:
                way.writer.submit(parcel)
        sent.parcels = parcels
        self._sent.append(sent)

    async def deliver(self, events: Sequence[Event]) -> Sequence[Rejected]:
        if not self._sent:
            self.send(events)
        sent = self._sent[0]
        stored = await self._stored(sent)
        self._sent.popleft()
        if events:
            last = events[-1].position_seq
            self._known = {seq for seq in self._known if seq > last}
            # What is known lies behind the mark, and must stay findable until it is passed.
            if stored and not self._known:
                self.mark = max(self.mark, stored)
        return sent.rejected

    async def close(self) -> None:
        """The connection is the process's. What waits to be stored is withdrawn."""
        self._forget_sent()

    def _forget_sent(self) -> None:
        parcels = [parcel for sent in self._sent for parcel in sent.parcels]
        self._sent.clear()
        if parcels and self._way is not None and self._way.writer is not None:
            self._way.writer.withdraw(parcels)

    def _open_way(self) -> _Way:
        if self._way is None:
            raise TargetAway("NATS is away")
        return self._way

    def _shares(self) -> bool:
        """Whether the next messages may share batches: all before them are under way there."""
        way = self._way
        if way is None or way.holder is None or not way.holder.atomic:
            return False
        if self._alone_until > asyncio.get_running_loop().time():
            return False
        return all(parcel.under_way for sent in self._sent for parcel in sent.parcels)

    def _made(self, events: Sequence[Event], rejected: list[Rejected]) -> list[Parcel]:
        """The messages of events; `rejected` takes the events that have none."""
        bytes_max, known = self._open_way().client.max_payload, self._known
        make, guard = self._deriver.message, self._guard
        parcels: list[Parcel] = []
        chunk: list[Derived] = []
        chunk_bytes = 0
        for event in events:
            if known and event.position_seq in known:
                continue
            try:
                message = make(event)
            except PickError as exc:
                rejected.append(Rejected(event, "pick", str(exc)))
                continue
            size = message.size
            if size > bytes_max:
                rejected.append(Rejected(event, "too_large", f"{size} bytes: more than NATS takes"))
                continue
            if chunk and (len(chunk) >= BATCH_MESSAGES_MAX or chunk_bytes + size > BATCH_BYTES_MAX):
                parcels.append(Parcel(chunk, chunk_bytes, guard))
                chunk, chunk_bytes = [], 0
            chunk.append(message)
            chunk_bytes += size
        if chunk:
            parcels.append(Parcel(chunk, chunk_bytes, guard))
        return parcels

    async def _stored(self, sent: _Sent) -> int:
        """Wait until a portion is stored; the stream's sequence of its last message, 0 for none."""
        way, stored = self._open_way(), 0
        if way.own is None:
            await self._publish([each for parcel in sent.parcels for each in parcel.messages])
            return 0
        for place, parcel in enumerate(sent.parcels):
            if parcel.outcome is None:  # the first that was not submitted, or nothing was
                rest = (each.messages for each in sent.parcels[place:])
                return max(stored, await self._store_alone(way.own, rest, sent.rejected))
            outcome = await parcel.outcome
            if outcome.away:
                raise TargetAway(outcome.away)
            if outcome.seq:
                stored = outcome.seq
            else:
                chunks = iter([parcel.messages])
                stored = max(stored, await self._store_alone(way.own, chunks, sent.rejected))
        return stored

    async def _store_alone(
        self, own: OwnBatches, chunks: Iterator[Sequence[Derived]], rejected: list[Rejected]
    ) -> int:
        refusals = own.refusals
        stored = await own.store(chunks, rejected)
        if own.refusals > refusals:
            self._alone_until = asyncio.get_running_loop().time() + ALONE_S
        return stored

    async def _publish(self, messages: Sequence[Derived]) -> None:
        """Publish to subscribers only: no stream holds the subject."""
        if not messages:
            return
        self._guard()
        client = self._open_way().client
        if not client.write(b"".join(map(encode_unstored, messages))):
            raise TargetAway("the connection to NATS is lost")
        try:
            await client.flush(timeout=_FLUSH_S)
        except (nats.errors.Error, TimeoutError) as exc:
            raise TargetAway(f"NATS does not answer: {exc or type(exc).__name__}") from exc
