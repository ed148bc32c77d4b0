"""Which node settles the commands whose time has passed: a lease, changed by compare-and-set.

The lease is a message in COMMANDS on a subject that no device can have. Its holder replaces it
every `BEAT_S`. The others watch it by their own clocks: if it does not change for `LEASE_S`, its
holder is gone, and one of them takes it. So no clock is shared. The lease only saves work: each
command is settled by compare-and-set, so two holders do no harm.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from gateway.stream.errors import FactConflict, StoreAway

SUBJECT: Final = "commands.status.~.~.expiry"
BEAT_S: Final = 4.0
LEASE_S: Final = 12.0
_TRUST_S: Final = 10.0
"""The holder trusts its lease for this long after it was stored."""


class Record(Struct):
    """What is stored."""

    owner: str


class LeaseStore(Protocol):
    """The stream COMMANDS. Every method raises `StoreAway` if the answer is not known."""

    async def read(self, subject: str) -> tuple[int, bytes] | None:
        """Sequence and payload of the last message."""

    async def append(self, subject: str, data: bytes, message_id: str, after: int) -> int:
        """Store a message behind the one at `after`. Returns its sequence.

        Raises:
            FactConflict: it would not stand behind that one.
        """

    async def delete(self, seq: int) -> None:
        """Delete a message."""


class ExpiryLease:
    """The lease, as one node sees it."""

    def __init__(
        self, store: LeaseStore, node: str, *, clock: Callable[[], float], rng: random.Random
    ) -> None:
        """
        Args:
            store: the stream.
            node: the name of this process.
            clock: monotonic seconds.
            rng: source of jitter.
        """
        self._store = store
        self._node = node
        self._clock = clock
        self._rng = rng
        self._seen = 0
        """The sequence of the lease when it was read last, and since when it is that."""
        self._seen_at = 0.0
        self._stored_at = float("-inf")

    @property
    def held(self) -> bool:
        """Whether this node settles commands whose time has passed."""
        return self._clock() - self._stored_at < _TRUST_S

    async def run(self) -> None:
        """Hold it, or watch it, until cancelled."""
        while True:
            with contextlib.suppress(StoreAway, FactConflict):  # the next look says who holds it
                await self.look()
            await asyncio.sleep(self._rng.uniform(0.8, 1.2) * BEAT_S)

    async def look(self) -> None:
        """Hold it for another while, or take it if its holder is gone.

        Raises:
            StoreAway: the stream does not answer.
            FactConflict: another node was first.
        """
        now = self._clock()
        found = await self._store.read(SUBJECT)
        seq, data = found if found is not None else (0, b"")
        if seq != self._seen:
            self._seen, self._seen_at = seq, now
        if found is None or _owner_in(data) == self._node or now - self._seen_at > LEASE_S:
            record = msgspec.json.encode(Record(self._node))
            message_id = f"expiry:{self._node}:{seq}"
            self._seen = await self._store.append(SUBJECT, record, message_id, seq)
            self._seen_at = self._stored_at = now
            if seq:
                await self._store.delete(seq)


def _owner_in(data: bytes) -> str:
    try:
        return msgspec.json.decode(data, type=Record).owner
    except msgspec.DecodeError:
        return ""
