"""Takes letters that were sent again from REDRIVES to the rule or sink that wrote them.

    IDLE --woken--> anything behind the position? --claim--> read up to the end, deliver --> IDLE

Redrives are rare. So a consumer owns its second position (`<name>.redrives`) and has a reader for
REDRIVES only while there is something to deliver, and not beside its own reader all the time. The
target is one of its own, of the same kind and with the same ids, so the position moves as safely as
that of the consumer itself, and a slow redrive holds back no new event.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

import msgspec
import nats.errors
import structlog
from msgspec import UNSET, Struct, UnsetType

from gateway import tasks
from gateway.consumers.errors import ConsumerError
from gateway.consumers.letters.letterbox import Letterbox
from gateway.consumers.stored_now import stored_now
from gateway.consumers.target import BEAT_S, Bury, Consumption, Rejected, SinkObserver, Target
from gateway.events.errors import PositionError
from gateway.events.event import Event
from gateway.events.explaining import first_failure
from gateway.events.letters import Stage
from gateway.events.matching import facts_of
from gateway.events.position import Position, StreamState, resume
from gateway.events.redrives import REDRIVES, RedrivenEvent, redriven_event, redrives_filter
from gateway.events.rules import Rule
from gateway.jitter import full_jitter_s
from gateway.stream.errors import StreamMissing
from gateway.stream.link.client import LinkClient
from gateway.stream.provisioning.inspection import message_id_at, stream_facts
from gateway.stream.reading.reader import Link

_log = structlog.get_logger(__name__)

_BATCH_MAX: Final = 500
_BATCH_BYTES_MAX: Final = 8 << 20
_TIMEOUT_S: Final = 5.0
_STANDBY_S: Final = 1.0
_RETRY_S: Final = 0.5
_RETRY_MAX_S: Final = 30.0
NO_MATCH: Final = "no_match"


class _Got(Struct):
    message: msgspec.Raw | UnsetType = UNSET


class RedriveCarrier:
    """The redrives of one consumer, as one process sees them."""

    def __init__(
        self,
        consumer: Consumption,
        target: Target,
        link: Link,
        *,
        stage: Stage,
        observer: SinkObserver,
        rng: random.Random,
    ) -> None:
        """
        Args:
            consumer: the rule or sink, as the events file has it.
            target: its target, with a position of its own.
            link: the connection to NATS.
            stage: of its dead letters.
            observer: hooks for metrics.
            rng: source of jitter.
        """
        self._consumer = consumer
        self._target = target
        self._link = link
        self._stage: Stage = stage
        self._observer = observer
        self._rng = rng
        self._letterbox = Letterbox(link, stage, consumer.name)
        self._stray = _stray_of(consumer)
        self._woken = asyncio.Event()
        self._end = 0
        self._carried = 0

    @property
    def name(self) -> str:
        return self._consumer.name

    @property
    def idle(self) -> bool:
        """Whether everything that is known to be sent again to the consumer is delivered."""
        return not self._woken.is_set() and self._carried > 0

    def wake(self, last_seq: int) -> None:
        """REDRIVES ends at this sequence now; an end that went back is that of another stream."""
        if last_seq < self._end:
            self._carried = 0
        self._end = last_seq
        self._woken.set()

    async def run(self) -> None:
        """Deliver whatever is sent again, until cancelled."""
        failures = 0
        while True:
            await self._woken.wait()
            end = self._end
            try:
                done = await self._carry()
            except (ConsumerError, PositionError, StreamMissing) as exc:
                failures += 1
                self._failed(str(exc), failures)
                await asyncio.sleep(self._wait_s(failures))
                continue
            except (nats.errors.Error, TimeoutError) as exc:
                failures += 1
                self._failed(f"NATS: {exc or type(exc).__name__}", failures)
                await asyncio.sleep(self._wait_s(failures))
                continue
            failures = 0
            if not done:  # another process delivers them; it may die
                await asyncio.sleep(self._rng.uniform(_STANDBY_S / 2, _STANDBY_S))
                continue
            self._carried = end
            if self._end == end:
                self._woken.clear()

    def _wait_s(self, failures: int) -> float:
        return full_jitter_s(
            self._rng, failures, first_s=_RETRY_S, max_s=_RETRY_MAX_S, least_s=_RETRY_S / 2
        )

    def _failed(self, reason: str, failures: int) -> None:
        if failures == 1:
            _log.warning("redrives_wait", consumer=self.name, stage=self._stage, reason=reason)

    async def _carry(self) -> bool:
        """Deliver what is stored for the consumer now. Returns whether it is delivered."""
        client = await self._link.wait_up()
        if not await self._any_behind(client, self._carried):
            return True
        target = self._target
        try:
            await target.open()
            mine, position = await target.claim()
            if not mine:
                return False
            try:
                await self._while_alive(client, position)
            finally:
                with contextlib.suppress(ConsumerError):
                    await target.release()
        finally:
            with contextlib.suppress(ConsumerError):
                await target.close()
        return True

    async def _any_behind(self, client: LinkClient, seq: int) -> bool:
        wanted = {"seq": seq + 1, "next_by_subj": self._filter}
        answer = await client.request(
            f"$JS.API.STREAM.MSG.GET.{REDRIVES}", msgspec.json.encode(wanted), timeout=_TIMEOUT_S
        )
        return msgspec.json.decode(answer.data, type=_Got).message is not UNSET

    @property
    def _filter(self) -> str:
        return redrives_filter(self._stage, self.name)

    async def _while_alive(self, client: LinkClient, position: Position | None) -> None:
        """Deliver, and show signs of life meanwhile."""
        work = asyncio.create_task(self._deliver(client, position), name=f"redrive-{self.name}")
        try:
            while not (await asyncio.wait({work}, timeout=BEAT_S))[0]:
                await self._target.beat()
            work.result()
        finally:
            await tasks.end(work)

    async def _deliver(self, client: LinkClient, position: Position | None) -> None:
        facts = await stream_facts(client, REDRIVES)
        if position is None:
            position = Position(facts.created, 0)
            await self._target.begin(position)
        id_there = None
        if position.seq and facts.first_seq <= position.seq <= facts.last_seq:
            id_there = await message_id_at(client, REDRIVES, position.seq)
        state = StreamState(facts.created, facts.first_seq, facts.last_seq)
        start = resume(position, state, id_there)
        in_doubt = True

        async def bury(rejected: Sequence[Rejected]) -> None:
            await self._letterbox.store(rejected, in_doubt=in_doubt)

        async for events in self._batches(start.seq - 1):
            last = events[-1]
            after = Position(facts.created, last.position_seq, last.position_id)
            await self._write(events, after, bury)
            in_doubt = False

    async def _write(self, events: Sequence[RedrivenEvent], after: Position, bury: Bury) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        strays, kept = [], []
        for event in events:
            reason = self._stray(event)
            if reason:
                strays.append(Rejected(event, NO_MATCH, reason))
            else:
                kept.append(event)
        if strays:
            await bury(strays)
        buried = len(strays)
        if kept:
            buried += await self._target.write(kept, after, bury)
        self._observer.written(self.name, events, buried, loop.time() - began)

    async def _batches(self, after: int) -> AsyncIterator[list[RedrivenEvent]]:
        batch: list[RedrivenEvent] = []
        size = 0
        limit = min(self._consumer.batch, _BATCH_MAX)
        found = stored_now(self._link, REDRIVES, [self._filter], redriven_event, after=after)
        async with contextlib.aclosing(found):
            async for event in found:
                batch.append(event)
                size += len(event.data)
                if len(batch) == limit or size >= _BATCH_BYTES_MAX:
                    yield batch
                    batch, size = [], 0
        if batch:
            yield batch


def _stray_of(consumer: Consumption) -> Callable[[Event], str]:
    """Says why an event does not belong to the consumer; empty if it does.

    A rule passes over what does not match. An event that was sent again to this very rule must not
    vanish so: a patch, or a change of the rule, is the cause, and a new letter says it.
    """
    if not isinstance(consumer, Rule):
        return lambda _event: ""
    pattern = consumer.when

    def stray(event: Event) -> str:
        failure = first_failure(pattern, facts_of(event))
        return "" if failure is None else f"the rule does not match it: {failure}"

    return stray
