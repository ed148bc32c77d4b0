"""Follows STATE: every state that is set reaches the node, from the moment on at which it begins.

The follower reads on without a gap after every reconnect. If the stream was made anew, or went back
to an earlier place, it begins with the new one, and everything known of the old one is dropped.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Final, NamedTuple

import nats.errors
import structlog

from gateway import tasks
from gateway.session.desired import Version, epoch_of
from gateway.stream.errors import NotAnswered, StreamMissing
from gateway.stream.link.client import LinkClient
from gateway.stream.names import STATE
from gateway.stream.provisioning.inspection import stream_facts
from gateway.stream.reading.reader import Link, StartAt, StreamReader
from gateway.stream.states.known import Key, Known, KnownStates, key_of
from gateway.stream.states.reads import StateReads, known_from

_log = structlog.get_logger(__name__)

ALL_STATES: Final = "state.*.*"
_ROOM_MESSAGES: Final = 1_024
_ROOM_BYTES: Final = 4 << 20
_AT_ONCE_MESSAGES: Final = 64
"""Messages that are handled in one turn of the event loop."""
_AT_ONCE_BYTES: Final = 1 << 20
_TIMEOUT_S: Final = 5.0


class _Set(NamedTuple):
    """A state that was set."""

    key: Key
    known: Known


def _set_of(subject: str, _headers: bytes, payload: bytes, sequence: int, _stored_ns: int) -> _Set:
    key = key_of(subject)
    return _Set(key, known_from(key, sequence, payload))


class StateFollower:
    """Delivers the states that are set to what the node knows, and to its sessions."""

    def __init__(
        self,
        link: Link,
        known: KnownStates,
        *,
        subject: str = ALL_STATES,
        on_set: Callable[[Key, Version, bytes], None],
        on_anew: Callable[[], None],
        rng: random.Random,
    ) -> None:
        """
        Args:
            link: the connection.
            known: what the node knows.
            subject: whose states are followed.
            on_set: takes each state that was set.
            on_anew: called when another stream is followed than before.
            rng: source of jitter.
        """
        self._known = known
        self._on_set = on_set
        self._on_anew = on_anew
        self.begun = asyncio.Event()
        """Set once the stream is followed."""
        self._place = 0
        """In the stream: everything behind it is delivered."""
        self._reader: StreamReader[_Set] = StreamReader(
            link,
            STATE,
            [subject],
            start=self._start,
            make=_set_of,
            room_messages=_ROOM_MESSAGES,
            room_bytes=_ROOM_BYTES,
            rng=rng,
        )

    async def run(self) -> None:
        """Follow until cancelled."""
        reading = asyncio.create_task(self._reader.run(), name="states-reading")
        delivering = asyncio.create_task(self._deliver(), name="states-delivering")
        try:
            await asyncio.wait({reading, delivering}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await tasks.end(reading, delivering)
        for task in (reading, delivering):
            if not task.cancelled():
                task.result()

    async def _deliver(self) -> None:
        while True:
            for key, known in await self._reader.gather(_AT_ONCE_MESSAGES, _AT_ONCE_BYTES, 0.0):
                if known.sequence:
                    self._known.followed(key, known)
                    self._on_set(key, self._known.version(known), known.desired)
            await asyncio.sleep(0)

    async def _start(self, client: LinkClient, accepted: int) -> StartAt:
        """Where to read on.

        Raises:
            nats.errors.Error: JetStream does not answer; the reader asks again.
        """
        try:
            facts = await stream_facts(client, STATE)
            epoch, place = epoch_of(facts.created), max(self._place, accepted)
            if epoch == self._known.epoch and facts.last_seq >= place:
                return StartAt(place + 1)
            async with StateReads(client, _TIMEOUT_S) as reads:
                last = await reads.of_leader(ALL_STATES)
        except (StreamMissing, NotAnswered) as exc:
            raise nats.errors.Error(str(exc)) from exc
        self._begin(epoch, facts.last_seq, last)
        return StartAt(facts.last_seq + 1)

    def _begin(self, epoch: str, last_seq: int, last: tuple[str, int, bytes] | None) -> None:
        another = bool(self._known.epoch)
        self._place = self._reader.accepted = last_seq
        self._reader.take(_ROOM_MESSAGES, 2 * _ROOM_BYTES)  # what is left of the stream before
        self._known.begin(epoch, last[1] if last else 0, last[0] if last else None)
        self.begun.set()
        _log.info("states_followed", epoch=epoch, after=last_seq)
        if another:
            _log.warning("states_made_anew", epoch=epoch)
            self._on_anew()
