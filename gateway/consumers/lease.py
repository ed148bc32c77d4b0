"""Who owns a rule, and how far it has come: one record in a bucket, changed by compare-and-set.

Owner and position stand in the same record, so that a process which lost the rule cannot move the
position any more. The record does not expire. A standby watches it by its own clock: if it does not
change for `LEASE_S`, its owner lives no more. So no clock is shared, and a position is never lost
with the sign of life.

The bucket is a JetStream key-value bucket (`nats kv get TIDEGATE_RULES <name>`). nats-py's own
client is not used: it would need the right to read every bucket.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
import nats.errors
import nats.js.errors
from msgspec import Struct
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, StreamConfig

from gateway.consumers.errors import NotOwner, TargetAway
from gateway.events.position import Position
from gateway.stream.encoding import EVENTS
from gateway.stream.nats_client import LinkClient
from gateway.stream.reader import Link

LEASE_S: Final = 5.0
"""Without a sign of life for so long an owner has lost the rule."""
TRUST_S: Final = 3.5
"""For so long after a sign of life an owner may write to its target."""
_FRESH_S: Final = 0.5
"""A sign of life that is younger needs no other one. A hundred rules write to one bucket, which may
sync each record."""
BUCKET: Final = "TIDEGATE_RULES"
STREAM: Final = f"KV_{BUCKET}"
_TIMEOUT_S: Final = 2.0
_WRONG_SEQUENCE: Final = 10071
_NO_MESSAGE: Final = 10037


class Record(Struct, frozen=True):
    """What is stored of a rule."""

    owner: str = ""
    position: Position | None = None
    mark: int = 0
    """The target's last sequence when the position was stored: what is behind it may be ours."""
    beat: int = 0


class _Error(Struct):
    err_code: int = 0
    description: str = ""


class _Message(Struct):
    seq: int
    data: bytes = b""


class _Got(Struct):
    message: _Message | None = None
    error: _Error | None = None


class _PubAck(Struct):
    seq: int = 0
    error: _Error | None = None


async def _replicas(jetstream: JetStreamContext) -> int:
    """A lease is kept as safely as the events."""
    return (await jetstream.stream_info(EVENTS)).config.num_replicas or 1


class Lease:
    """The record of one rule, as one process sees it."""

    def __init__(self, link: Link, name: str, owner: str, clock: Callable[[], float]) -> None:
        """
        Args:
            link: the connection.
            name: of the rule.
            owner: this process.
            clock: monotonic seconds.
        """
        self._link = link
        self._subject = f"$KV.{BUCKET}.{name}"
        self._owner = owner
        self._clock = clock
        self._lock = asyncio.Lock()
        self._revision = 0
        self._seen_at = 0.0
        self._shown_at = float("-inf")
        self.record = Record()

    async def open(self) -> None:
        """Make the bucket if there is none.

        Raises:
            TargetAway: NATS does not answer.
        """
        client = self._client()
        try:
            jetstream = client.jetstream(timeout=_TIMEOUT_S)
            try:
                await jetstream.stream_info(STREAM)
            except nats.js.errors.NotFoundError:
                await jetstream.add_stream(
                    StreamConfig(
                        STREAM,
                        subjects=[f"$KV.{BUCKET}.>"],
                        max_msgs_per_subject=1,
                        discard=DiscardPolicy.NEW,
                        allow_rollup_hdrs=True,
                        deny_delete=True,
                        allow_direct=False,
                        num_replicas=await _replicas(jetstream),
                    )
                )
        except (nats.errors.Error, TimeoutError) as exc:
            raise TargetAway(f"the leases of rules cannot be read: {exc or type(exc)}") from exc

    async def take(self) -> bool:
        """Become the owner if nobody is, or if the owner has shown no sign of life.

        Raises:
            TargetAway: NATS does not answer.
        """
        async with self._lock:
            before = self._revision
            await self._read()
            free = self.record.owner in ("", self._owner)
            if not free:
                if self._revision != before:
                    self._seen_at = self._clock()
                if self._clock() - self._seen_at <= LEASE_S:
                    return False
            return await self._write(msgspec.structs.replace(self.record, owner=self._owner))

    async def beat(self) -> None:
        """Show that this process lives, unless a position has just shown it.

        Raises:
            NotOwner: another process took over.
            TargetAway: NATS does not answer.
        """
        async with self._lock:
            if self._clock() - self._shown_at >= _FRESH_S:
                await self._must_write(self.record)

    async def save(self, position: Position | None, mark: int) -> None:
        """Store how far the rule has come. Raises as `beat`."""
        async with self._lock:
            changed = msgspec.structs.replace(self.record, position=position, mark=mark)
            await self._must_write(changed)

    def check(self) -> None:
        """
        Raises:
            NotOwner: the last sign of life is so old that another process may take over.
        """
        if self._clock() - self._shown_at > TRUST_S:
            raise NotOwner("no sign of life was stored for too long: another process may own it")

    async def release(self, position: Position | None = None, mark: int = 0) -> None:
        """Own it no more, so that the next one needs not wait for the lease to end.

        Args:
            position: how far the rule has come, None for what is stored already.
            mark: of the target then.
        """
        async with self._lock:
            record = self.record
            if record.owner == self._owner:
                if position is not None:
                    record = msgspec.structs.replace(record, position=position, mark=mark)
                await self._write(msgspec.structs.replace(record, owner=""))
                self._shown_at = float("-inf")

    async def _must_write(self, record: Record) -> None:
        if record.owner == self._owner and await self._write(record):
            return
        # The write before may have been stored without an answer; then the record is still ours.
        await self._read()
        if self.record.owner != self._owner or not await self._write(
            msgspec.structs.replace(record, beat=self.record.beat)
        ):
            raise NotOwner("another process took over")

    async def _write(self, record: Record) -> bool:
        """Whether it was stored: nobody changed the record meanwhile."""
        client = self._client()
        record = msgspec.structs.replace(record, beat=record.beat + 1)
        began = self._clock()
        headers = {"Nats-Expected-Last-Subject-Sequence": str(self._revision)}
        try:
            answer = await client.request(
                self._subject, msgspec.json.encode(record), timeout=_TIMEOUT_S, headers=headers
            )
        except (nats.errors.Error, TimeoutError) as exc:
            raise TargetAway(f"a lease was not stored: {exc or type(exc).__name__}") from exc
        ack = msgspec.json.decode(answer.data, type=_PubAck)
        if ack.error is not None:
            if ack.error.err_code == _WRONG_SEQUENCE:
                return False
            raise TargetAway(f"a lease was not stored: {ack.error.description}")
        self._revision, self.record = ack.seq, record
        self._seen_at = self._shown_at = began
        return True

    async def _read(self) -> None:
        client = self._client()
        wanted = msgspec.json.encode({"last_by_subj": self._subject})
        try:
            # Of the stream's leader: a replica may be behind.
            answer = await client.request(
                f"$JS.API.STREAM.MSG.GET.{STREAM}", wanted, timeout=_TIMEOUT_S
            )
        except (nats.errors.Error, TimeoutError) as exc:
            raise TargetAway(f"a lease was not read: {exc or type(exc).__name__}") from exc
        got = msgspec.json.decode(answer.data, type=_Got)
        if got.error is not None and got.error.err_code != _NO_MESSAGE:
            raise TargetAway(f"a lease was not read: {got.error.description}")
        if got.message is None:
            self._revision, self.record = 0, Record()
        else:
            self._revision = got.message.seq
            self.record = msgspec.json.decode(got.message.data, type=Record)

    def _client(self) -> LinkClient:
        client = self._link.client
        if client is None:
            raise TargetAway("NATS is away")
        return client
