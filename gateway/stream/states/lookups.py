"""Looks up the states of devices which ask for one that the node does not know.

Rounds follow each other, one at a time. A round takes the devices that have asked meanwhile, so a
storm makes rounds of many devices and few requests. Each begins after a pause with jitter.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Final

import nats.errors
import structlog

from gateway.jitter import full_jitter_s
from gateway.session.desired import Version, epoch_of
from gateway.stream.errors import NotAnswered, StreamMissing
from gateway.stream.link.dialing import describe
from gateway.stream.names import STATE
from gateway.stream.observer import StreamObserver
from gateway.stream.provisioning.inspection import stream_facts
from gateway.stream.reading.reader import Link
from gateway.stream.states.known import NO_STATE, Key, Known, KnownStates, subject_of
from gateway.stream.states.reads import StateReads, known_from
from gateway.stream.states.round import StateRound

_log = structlog.get_logger(__name__)

_GATHER_S: Final = 0.02
_TIMEOUT_S: Final = 2.0
_RETRY_S: Final = 0.1
_RETRY_MAX_S: Final = 5.0
_LEADER_AT_ONCE: Final = 16

_AGAIN: Final = (nats.errors.Error, NotAnswered, StreamMissing, TimeoutError)

OnAnswer = Callable[[Version, bytes, bool], None]
"""Takes the version, the state, and whether the stream's leader says so."""


class StateLookups:
    """Answers the sessions that wait for a state."""

    def __init__(
        self,
        link: Link,
        known: KnownStates,
        *,
        begun: asyncio.Event,
        devices_max: int,
        observer: StreamObserver,
        rng: random.Random,
    ) -> None:
        """
        Args:
            link: the connection.
            known: what the node knows; what is found is kept there.
            begun: set once STATE is followed. Nothing is asked before.
            devices_max: devices that are asked about at once.
            observer: counts what is asked.
            rng: source of jitter.
        """
        self._link = link
        self._known = known
        self._begun = begun
        self._devices_max = devices_max
        self._observer = observer
        self._rng = rng
        self._asked: dict[Key, dict[OnAnswer, Version | None]] = {}
        """Sessions that wait, and the version that each claims."""
        self._wanted = asyncio.Event()
        self._leader_slots = asyncio.Semaphore(_LEADER_AT_ONCE)

    def __len__(self) -> int:
        return len(self._asked)

    def ask(self, key: Key, held: Version | None, answer: OnAnswer) -> None:
        """Have `answer` called once the state of a device is known.

        Args:
            key: tenant and device.
            held: the version that the device says it has.
            answer: called once, unless `forget` comes first.
        """
        self._asked.setdefault(key, {})[answer] = held
        self._wanted.set()

    def forget(self, key: Key, answer: OnAnswer) -> None:
        """The session waits no more."""
        waiting = self._asked.get(key)
        if waiting is not None:
            waiting.pop(answer, None)
            if not waiting:
                del self._asked[key]

    async def run(self) -> None:
        """Look up until cancelled."""
        failures = 0
        await self._begun.wait()
        while True:
            client = await self._link.wait_up()
            try:
                async with StateReads(client, _TIMEOUT_S) as reads:
                    while True:
                        await self._wanted.wait()
                        await asyncio.sleep(self._rng.uniform(0.5, 1) * _GATHER_S)
                        if self._link.client is not client:
                            break
                        await self._round(reads)
                        failures = 0
            except _AGAIN as exc:
                failures += 1
                self._observer.state_round_failed()
                if failures == 1:
                    _log.warning("state_lookup_repeated", error=describe(exc), waiting=len(self))
                wait_s = full_jitter_s(self._rng, failures, first_s=_RETRY_S, max_s=_RETRY_MAX_S)
                await asyncio.sleep(wait_s)

    async def _round(self, reads: StateReads) -> None:
        """Answer the devices that have waited longest."""
        keys = [key for key, _ in zip(self._asked, range(self._devices_max), strict=False)]
        asked = {key: _highest(self._asked[key]) for key in keys}
        generation, planned = self._known.generation, StateRound(self._known, asked)
        if planned.epoch_in_doubt:
            await self._check_epoch(reads)
        if planned.direct:
            self._observer.states_asked("direct", len(planned.direct))
            read = await reads.direct(planned.direct, self._known.witness)
            self._check(generation)
            planned.found(read.found, read.up_to, whole=read.whole)
        if planned.leader:
            self._observer.states_asked("leader", len(planned.leader))
            told = await asyncio.gather(*(self._of_leader(reads, key) for key in planned.leader))
            self._check(generation)
            for key, known in zip(planned.leader, told, strict=True):
                planned.told_by_leader(key, known)
        for key, (known, verified) in planned.answers.items():
            version = self._known.version(known)
            for answer in self._asked.pop(key, {}):
                answer(version, known.desired, verified)
        if not self._asked:
            self._wanted.clear()

    async def _of_leader(self, reads: StateReads, key: Key) -> Known:
        async with self._leader_slots:
            told = await reads.of_leader(subject_of(key))
        return NO_STATE if told is None else known_from(key, told[1], told[2])

    async def _check_epoch(self, reads: StateReads) -> None:
        """Whether the stream is the one that is followed. The follower sees it too, but later."""
        facts = await stream_facts(reads.client, STATE)
        if epoch_of(facts.created) != self._known.epoch:
            raise NotAnswered("STATE was made anew and is not followed yet")

    def _check(self, generation: int) -> None:
        """What was asked of one stream must not be taken for an answer of another one."""
        if self._known.generation != generation:
            raise NotAnswered("STATE was made anew meanwhile")


def _highest(claims: dict[OnAnswer, Version | None]) -> Version | None:
    return max((held for held in claims.values() if held is not None), default=None)
