"""The queue of commands on one node: one reader of the queue, the turns of sessions, and expiry.

No consumer is made for a device: ten thousand devices that come back at once would make ten
thousand consumers. One reader learns which devices have commands (`index.py`), and a device which
connects is given its own (`dispatch.py`).

Expiry: once an entry's time has passed, one node, which holds a lease, stores `expired`. The others
look later: they find the entry gone, or the lease has moved to them. A message's own time to live
would delete the entry without a fact.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Final

import structlog

from gateway.beats import beat
from gateway.stream.errors import EntryError, FactConflict, StoreAway
from gateway.stream.link.client import LinkClient
from gateway.stream.names import COMMANDS
from gateway.stream.queue.dispatch import Dispatch
from gateway.stream.queue.facts import QUEUE_PREFIX, DeviceKey, read_entry
from gateway.stream.queue.index import QueueIndex, Waiting
from gateway.stream.queue.turns import Turns
from gateway.stream.reading.reader import Link, StartAt, StreamReader

_log = structlog.get_logger(__name__)

_ROOM_MESSAGES: Final = 500
_ROOM_BYTES: Final = 4 * 2**20
_LINGER_S: Final = 0.0
_FULL_S: Final = 1.0
_EXPIRY_S: Final = 0.5
_EXPIRED_AT_ONCE: Final = 100
"""Entries that are settled in one round of expiry: at most 200 a second."""
_OTHERS_LATER_S: Final = 30.0
"""A node without the lease looks at an expired entry so much later, and as often."""
_RETRY_S: Final = (0.5, 2.0)

Read = tuple[DeviceKey, Waiting | None, int, str]
"""Of an entry: device, what is kept (None if it cannot be given), sequence, id of the command."""


class QueueReader:
    """Reads the entries of all devices into the index."""

    def __init__(
        self, link: Link, index: QueueIndex, turns: Turns, dispatch: Dispatch, rng: random.Random
    ) -> None:
        self._index = index
        self._turns = turns
        self._dispatch = dispatch
        self._rng = rng
        self._reader: StreamReader[Read] = StreamReader(
            link,
            COMMANDS,
            [f"{QUEUE_PREFIX}*.*"],
            start=_after,
            make=_make,
            room_messages=_ROOM_MESSAGES,
            room_bytes=_ROOM_BYTES,
            rng=rng,
        )

    async def read(self) -> None:
        """Read the queue until cancelled."""
        await self._reader.run()

    async def take(self) -> None:
        """Keep what was read in mind until cancelled."""
        while True:
            if self._index.full:
                await asyncio.sleep(_FULL_S)
                continue
            for key, waiting, seq, command_id in await self._reader.gather(
                _ROOM_MESSAGES, _ROOM_BYTES, _LINGER_S
            ):
                if waiting is None:
                    await self._discard(key, seq, command_id)
                else:
                    self._index.add(key, waiting)
                    self._dispatch.arrived(key)

    async def _discard(self, key: DeviceKey, seq: int, command_id: str) -> None:
        while True:
            try:
                await self._turns.discard(key, seq, command_id)
            except (StoreAway, FactConflict):
                await asyncio.sleep(self._rng.uniform(*_RETRY_S))
            else:
                _log.warning("command_entry_unusable", tenant=key[0], device=key[1], sequence=seq)
                return


async def _after(client: LinkClient, accepted: int) -> StartAt:
    del client
    return StartAt(seq=accepted + 1)


def _make(subject: str, headers: bytes, data: bytes, seq: int, stored_ns: int) -> Read:
    del headers
    tenant, _, device = subject.removeprefix(QUEUE_PREFIX).partition(".")
    try:
        entry = read_entry(data)
    except EntryError as exc:
        return (tenant, device), None, seq, exc.id
    waiting = Waiting(seq, entry.id, entry.expires_at, stored_ns / 1e9)
    return (tenant, device), waiting, seq, entry.id


class Expiry:
    """Settles the entries whose time has passed."""

    def __init__(
        self,
        index: QueueIndex,
        turns: Turns,
        dispatch: Dispatch,
        *,
        result_wait_s: float,
        leads: Callable[[], bool],
        wall: Callable[[], float],
        rng: random.Random,
    ) -> None:
        """
        Args:
            index: the entries.
            turns: settles one entry.
            dispatch: knows which commands sessions of this node have.
            result_wait_s: how long after its expiry a session may still bring a result.
            leads: whether this node holds the lease of expiry.
            wall: Unix time.
            rng: source of jitter.
        """
        self._index = index
        self._turns = turns
        self._dispatch = dispatch
        self._result_wait_s = result_wait_s
        self._leads = leads
        self._wall = wall
        self._rng = rng

    async def run(self) -> None:
        """Look for such entries until cancelled."""
        while True:
            await beat(_EXPIRY_S)
            for key, waiting in list(self._index.due(self._wall(), _EXPIRED_AT_ONCE)):
                await self._settle(key, waiting)

    async def _settle(self, key: DeviceKey, waiting: Waiting) -> None:
        now = self._wall()
        patience_ends = waiting.expires_at + self._result_wait_s
        if self._dispatch.holds(key, waiting.id):
            if now < patience_ends:
                self._index.look_again(key, waiting.seq, patience_ends)
                return
        elif not self._leads() and now < waiting.expires_at + _OTHERS_LATER_S:
            later_s = _OTHERS_LATER_S * self._rng.uniform(1.0, 1.5)
            self._index.look_again(key, waiting.seq, now + later_s)
            return
        try:
            again = await self._turns.settle(key, waiting)
        except (StoreAway, FactConflict):
            again = now + self._rng.uniform(*_RETRY_S)
        if again is None:
            self._dispatch.release(key, waiting.id)
        else:
            self._index.look_again(key, waiting.seq, again)
