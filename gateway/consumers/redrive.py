"""Sends dead letters of the gateway again, each exactly once, however often it is interrupted.

    lease -> mark of EVENTS -> for each letter: fact? -> stored behind the mark? -> event -> fact

The fact `redriven.<letter's sequence>` in REDRIVES says that a letter was sent. A run that is
killed between event and fact leaves its mark in the lease. The next run reads EVENTS from there;
what is there already gets its fact only. So the duplicate window of EVENTS does not matter.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import nats.errors
import nats.js.errors
from nats.js.api import StreamConfig

from gateway import tasks
from gateway.consumers.errors import NotOwner, TargetAway
from gateway.consumers.lease import Lease
from gateway.consumers.letter_reading import (
    REDRIVES,
    REDRIVES_SUBJECTS,
    fact_subject,
    letters_in,
    redriven_seqs,
)
from gateway.consumers.target import BEAT_S
from gateway.consumers.target_scan import delivered_behind
from gateway.events.dead_letters import Letter, Selection
from gateway.events.errors import RedriveError
from gateway.events.redriving import Check, Redriven, redrive_id, redriven
from gateway.stream.encoding import DEADLETTERS, EVENTS
from gateway.stream.inspection import stream_facts
from gateway.stream.nats_client import LinkClient
from gateway.stream.reader import Link

LEASE_NAME: Final = "redrive.lease"
"""No rule can have this name: it holds a dot."""
_CHUNK: Final = 200
_TIMEOUT_S: Final = 5.0


@dataclass
class Outcome:
    """What a redrive did."""

    sent: int = 0
    known: int = 0
    """Letters that had been sent before."""
    refused: list[tuple[int, str]] = field(default_factory=list)
    """Sequences of letters that cannot be events, with the reason. They stay letters."""


class Redrive:
    """One redrive of one selection."""

    def __init__(
        self,
        link: Link,
        publisher: LinkClient,
        selection: Selection,
        *,
        patch: Mapping[str, Any] | None,
        check: Check,
        rate_per_s: float | None,
        owner: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            link: the connection of an operator, who reads, and writes facts.
            publisher: a connection that may publish events.
            selection: which letters.
            patch: a merge patch for their data, or None.
            check: the schemas in force.
            rate_per_s: the most letters a second, or None.
            owner: names this process.
            clock: monotonic seconds.
        """
        self._link = link
        self._publisher = publisher
        self._selection = selection
        self._patch = patch
        self._check = check
        self._interval_s = 1 / rate_per_s if rate_per_s else 0.0
        self._clock = clock
        self._next_at = 0.0
        self._lease = Lease(link, LEASE_NAME, owner, clock)

    async def preview(self) -> tuple[list[Redriven], Outcome]:
        """What `run` would send, without sending it."""
        facts = await redriven_seqs(self._link)
        outcome, events = Outcome(), []
        async for letter in letters_in(self._link, self._selection):
            event = self._event(letter, facts, outcome)
            if event is not None:
                events.append(event)
        return events, outcome

    async def run(self) -> Outcome:
        """
        Raises:
            NotOwner: another redrive runs.
            TargetAway: NATS does not answer; run it again.
            StreamMissing: there is no stream of letters, or of events.
        """
        await self._make_stream()
        await self._lease.open()
        if not await self._lease.take():
            raise NotOwner("another redrive runs, or ended less than 5 s ago without a word")
        working = asyncio.create_task(self._work(), name="redrive")
        try:
            while not (await asyncio.wait({working}, timeout=BEAT_S))[0]:
                await self._lease.beat()
            outcome = working.result()
            await self._lease.save(None, 0)
        finally:
            await tasks.end(working)
            with contextlib.suppress(TargetAway):
                await self._lease.release()
        return outcome

    async def _work(self) -> Outcome:
        sent = await self._sent_by_an_unfinished_run()
        facts = await redriven_seqs(self._link)
        outcome = Outcome()
        chunk: list[Redriven] = []
        async for letter in letters_in(self._link, self._selection):
            event = self._event(letter, facts, outcome)
            if event is None:
                continue
            chunk.append(event)
            if len(chunk) == _CHUNK:
                await self._send(chunk, sent, outcome)
                chunk = []
        await self._send(chunk, sent, outcome)
        return outcome

    async def _sent_by_an_unfinished_run(self) -> set[int]:
        """Sequences of letters whose events are stored, perhaps without a fact."""
        mark = self._lease.record.mark
        if mark:
            return await delivered_behind(
                self._link, EVENTS, ["events.>"], ":redrive/", mark=mark - 1
            )
        facts = await stream_facts(await self._link.wait_up(), EVENTS)
        await self._lease.save(None, facts.last_seq + 1)
        return set()

    def _event(self, letter: Letter, facts: set[int], outcome: Outcome) -> Redriven | None:
        if letter.seq in facts:
            outcome.known += 1
            return None
        if not letter.of_gateway:
            reason = "letters of rules and sinks cannot be sent again yet"
            outcome.refused.append((letter.seq, reason))
            return None
        try:
            return redriven(letter, self._patch, self._check)
        except RedriveError as exc:
            outcome.refused.append((letter.seq, str(exc)))
            return None

    async def _send(self, events: list[Redriven], sent: set[int], outcome: Outcome) -> None:
        """Send events, those of one device one after the other."""
        by_device: dict[tuple[str, str], list[Redriven]] = {}
        for event in events:
            device = event.letter.tenant, event.letter.device
            by_device.setdefault(device, []).append(event)
        try:
            async with asyncio.TaskGroup() as group:
                for device_events in by_device.values():
                    group.create_task(self._send_in_order(device_events, sent, outcome))
        except* (nats.errors.Error, TimeoutError) as failures:
            first = failures.exceptions[0]
            raise TargetAway(f"NATS does not answer: {first or type(first).__name__}") from None

    async def _send_in_order(
        self, events: list[Redriven], sent: set[int], outcome: Outcome
    ) -> None:
        facts = (await self._link.wait_up()).jetstream(timeout=_TIMEOUT_S)
        publisher = self._publisher.jetstream(timeout=_TIMEOUT_S)
        for event in events:
            seq = event.letter.seq
            if seq in sent:
                outcome.known += 1
            else:
                await self._pace()
                self._lease.check()
                await publisher.publish(
                    event.subject, event.payload, stream=EVENTS, headers=dict(event.headers)
                )
                outcome.sent += 1
            headers = {"Nats-Msg-Id": fact_subject(seq)}
            fact = redrive_id(event.letter).encode()
            await facts.publish(fact_subject(seq), fact, stream=REDRIVES, headers=headers)

    async def _pace(self) -> None:
        if self._interval_s:
            at = max(self._next_at, self._clock())
            self._next_at = at + self._interval_s
            await asyncio.sleep(at - self._clock())

    async def _make_stream(self) -> None:
        jetstream = (await self._link.wait_up()).jetstream(timeout=_TIMEOUT_S)
        try:
            await jetstream.stream_info(REDRIVES)
        except nats.js.errors.NotFoundError:
            config = (await jetstream.stream_info(DEADLETTERS)).config
            await jetstream.add_stream(
                StreamConfig(
                    REDRIVES,
                    subjects=list(REDRIVES_SUBJECTS),
                    num_replicas=config.num_replicas,
                    max_age=config.max_age,
                    deny_delete=True,
                    deny_purge=True,
                )
            )
