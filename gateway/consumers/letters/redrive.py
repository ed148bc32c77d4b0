"""Sends dead letters again, each exactly once, however often it is interrupted.

    lease -> unfinished run? its facts -> mark of EVENTS -> for each letter: fact? -> event -> fact

Letters of the gateway go to EVENTS, letters of rules and sinks to REDRIVES. The fact
`redriven.<letter's sequence>` in REDRIVES says that a letter was sent. A run that is killed between
event and fact leaves its mark in the lease. The next run reads EVENTS from there, and REDRIVES;
what is there already gets its fact only. So the duplicate windows of the streams do not matter.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import StreamConfig

from gateway import tasks
from gateway.consumers.errors import NotOwner, TargetAway
from gateway.consumers.lease import LEASE_S, Lease
from gateway.consumers.lease_bucket import LeaseBucket
from gateway.consumers.letters.reading import fact_subject, letters_in, redriven_seqs
from gateway.consumers.target import BEAT_S
from gateway.consumers.target_scan import delivered_behind
from gateway.events.dead_letters import Letter, Selection
from gateway.events.errors import RedriveError
from gateway.events.redrives import REDRIVES, REDRIVES_SUBJECTS
from gateway.events.redriving import Check, Patch, Readers, Redriven, redriven
from gateway.stream.link.client import LinkClient
from gateway.stream.names import DEADLETTERS, EVENTS
from gateway.stream.provisioning.inspection import stream_facts
from gateway.stream.reading.reader import Link

LEASE_NAME: Final = "redrive.lease"
"""No rule can have this name: it holds a dot."""
_MIDDLE: Final = ":redrive/"
_TAKE_S: Final = 0.5
_CHUNK: Final = 200
_TIMEOUT_S: Final = 5.0


@dataclass
class Outcome:
    """What a redrive did."""

    sent: int = 0
    known: int = 0
    """Letters that had been sent before."""
    refused: list[tuple[int, str]] = field(default_factory=list)
    """Sequences of letters that cannot be sent, with the reason. They stay letters."""


class Redrive:
    """One redrive of one selection."""

    def __init__(
        self,
        link: Link,
        publisher: LinkClient,
        selection: Selection,
        *,
        patch: Patch | None,
        check: Check,
        readers: Readers | None = None,
        rate_per_s: float | None,
        owner: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            link: the connection of an operator, who reads, and writes facts and redrives.
            publisher: a connection that may publish events.
            selection: which letters.
            patch: a merge patch for their data, or None.
            check: the schemas in force.
            readers: the rules and sinks that there are; None if that is not known.
            rate_per_s: the most letters a second, or None.
            owner: names this process.
            clock: monotonic seconds.
        """
        self._link = link
        self._publisher = publisher
        self._selection = selection
        self._patch = patch
        self._check = check
        self._readers = readers
        self._interval_s = 1 / rate_per_s if rate_per_s else 0.0
        self._clock = clock
        self._next_at = 0.0
        self._lease = Lease(LeaseBucket(link), LEASE_NAME, owner, clock)

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
        await self._own()
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

    async def _own(self) -> None:
        """Wait for the lease of a run that was killed to end; a run that lives keeps it."""
        give_up_at = self._clock() + LEASE_S + 2 * _TAKE_S
        while not await self._lease.take():
            if self._clock() > give_up_at:
                raise NotOwner("another redrive runs")
            await asyncio.sleep(_TAKE_S)

    async def _work(self) -> Outcome:
        facts = await redriven_seqs(self._link)
        facts |= await self._finish_an_unfinished_run(facts)
        outcome = Outcome()
        chunk: list[Redriven] = []
        async for letter in letters_in(self._link, self._selection):
            event = self._event(letter, facts, outcome)
            if event is None:
                continue
            chunk.append(event)
            if len(chunk) == _CHUNK:
                await self._send(chunk, outcome)
                chunk = []
        await self._send(chunk, outcome)
        return outcome

    async def _finish_an_unfinished_run(self, facts: set[int]) -> set[int]:
        """Write the facts of what an unfinished run has stored.

        All of them, also of letters that this run does not select: the mark is given up at its end.

        Returns:
            The sequences of these letters.
        """
        mark = self._lease.record.mark
        if not mark:
            events = await stream_facts(await self._link.wait_up(), EVENTS)
            await self._lease.save(None, events.last_seq + 1)
            return set()
        sent = await delivered_behind(self._link, EVENTS, ["events.>"], _MIDDLE, mark=mark - 1)
        sent |= await delivered_behind(self._link, REDRIVES, ["redrives.>"], _MIDDLE, mark=0)
        jetstream = (await self._link.wait_up()).jetstream(timeout=_TIMEOUT_S)
        for seq in sorted(sent - facts):
            await _write_fact(jetstream, seq)
        return sent

    def _event(self, letter: Letter, facts: set[int], outcome: Outcome) -> Redriven | None:
        if letter.seq in facts:
            outcome.known += 1
            return None
        try:
            return redriven(letter, self._patch, self._check, self._readers)
        except RedriveError as exc:
            outcome.refused.append((letter.seq, str(exc)))
            return None

    async def _send(self, events: list[Redriven], outcome: Outcome) -> None:
        """Send events, those of one device one after the other."""
        by_device: dict[tuple[str, str], list[Redriven]] = {}
        for event in events:
            device = event.letter.tenant, event.letter.device
            by_device.setdefault(device, []).append(event)
        try:
            async with asyncio.TaskGroup() as group:
                for device_events in by_device.values():
                    group.create_task(self._send_in_order(device_events, outcome))
        except* (nats.errors.Error, TimeoutError) as failures:
            first = failures.exceptions[0]
            raise TargetAway(f"NATS does not answer: {first or type(first).__name__}") from None

    async def _send_in_order(self, events: list[Redriven], outcome: Outcome) -> None:
        operator = (await self._link.wait_up()).jetstream(timeout=_TIMEOUT_S)
        publisher = self._publisher.jetstream(timeout=_TIMEOUT_S)
        for event in events:
            await self._pace()
            self._lease.check()
            writer, stream = (
                (publisher, EVENTS) if event.letter.of_gateway else (operator, REDRIVES)
            )
            await writer.publish(
                event.subject, event.payload, stream=stream, headers=dict(event.headers)
            )
            outcome.sent += 1
            await _write_fact(operator, event.letter.seq)

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


async def _write_fact(jetstream: JetStreamContext, seq: int) -> None:
    """Write down that the letter with this sequence was sent again."""
    subject = fact_subject(seq)
    await jetstream.publish(subject, b"", stream=REDRIVES, headers={"Nats-Msg-Id": subject})
