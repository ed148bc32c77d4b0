"""Who owns a rule, and how far it has come: one record in a bucket, changed by compare-and-set.

Owner and position stand in the same record, so that a process which lost the rule cannot move the
position any more. The record does not expire. A standby watches it by its own clock: if it does not
change for `LEASE_S`, its owner is dead. So no clock is shared, and a position is never lost
with the sign of life.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Struct

from gateway.consumers.errors import NotOwner
from gateway.consumers.lease_bucket import LeaseBucket
from gateway.events.position import Position

LEASE_S: Final = 5.0
"""Without a sign of life for so long an owner has lost the rule."""
TRUST_S: Final = 3.5
"""For so long after a sign of life an owner may write to its target."""
_FRESH_S: Final = 0.6
"""A sign of life that is younger needs no other one. Positions are stored at full seconds of the
process's clock and signs of life half a second later, so a rule that moves writes once a second."""


class Record(Struct, frozen=True):
    """What is stored of a rule."""

    owner: str = ""
    position: Position | None = None
    mark: int = 0
    """The target's last sequence when the position was stored: what is behind it may be ours."""
    beat: int = 0


class Lease:
    """The record of one rule, as one process sees it."""

    def __init__(
        self, bucket: LeaseBucket, name: str, owner: str, clock: Callable[[], float]
    ) -> None:
        """
        Args:
            bucket: of the process.
            name: of the rule.
            owner: this process.
            clock: monotonic seconds.
        """
        self._bucket = bucket
        self._name = name
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
        await self._bucket.open()

    async def take(self) -> bool:
        """Become the owner if there is none, or if the owner has shown no sign of life.

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
        """Give the rule up, so that the next owner need not wait for the lease to end.

        Args:
            position: how far the rule has come, None for what is stored already.
            mark: of the target then.
        """
        async with self._lock:
            if self.record.owner != self._owner:
                return
            changes: dict[str, Any] = {"owner": ""}
            if position is not None:
                changes |= {"position": position, "mark": mark}
            if not await self._write(msgspec.structs.replace(self.record, **changes)):
                # A write that was cancelled may have been stored, with a position of its own.
                await self._read()
                if self.record.owner == self._owner:
                    await self._write(msgspec.structs.replace(self.record, **changes))
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
        record = msgspec.structs.replace(record, beat=record.beat + 1)
        began = self._clock()
        data = msgspec.json.encode(record)
        revision = await self._bucket.write(self._name, self._revision, data)
        if revision is None:
            return False
        self._revision, self.record = revision, record
        self._seen_at = self._shown_at = began
        return True

    async def _read(self) -> None:
        self._revision, data = await self._bucket.read(self._name)
        self.record = msgspec.json.decode(data, type=Record) if data else Record()
