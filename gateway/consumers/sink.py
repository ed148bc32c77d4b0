"""A sink: from the stream into a target, each event once, for as long as the process lives.

    OPENING ----> STANDING_BY ----> RUNNING
       ^   opened      |    owner      |
       |               |               |  target away, owner lost, connection lost
       +------ wait ---+---------------+
       |
       +--- REFUSED: the target refuses until an operator changes something; tried ever slower

Memory is bounded by the reader's room: one batch that is written (or as many as the target takes
ahead), and one that is read meanwhile.
"""

import asyncio
import contextlib
import enum
import logging
import random
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from gateway import tasks
from gateway.consumers.errors import (
    ConsumerError,
    NotOwner,
    TargetAway,
    TargetRefused,
    TargetSlow,
)
from gateway.consumers.lag import Lag
from gateway.consumers.letters.letterbox import Letterbox
from gateway.consumers.progress import Progress
from gateway.consumers.reading import Portion, Reading, ReadingOf
from gateway.consumers.target import BEAT_S, Consumption, Rejected, SinkObserver, Target
from gateway.events.letters import Stage
from gateway.events.position import Position
from gateway.jitter import full_jitter_s
from gateway.stream.reading.reader import Link

_log = structlog.get_logger(__name__)

_CLAIM_S: Final = 1.0
_RETRY_S: Final = 0.2
_RETRY_MAX_S: Final = 10.0
_REFUSED_RETRY_MAX_S: Final = 60.0


class State(enum.Enum):
    OPENING = "opening"
    STANDING_BY = "standing_by"
    RUNNING = "running"
    REFUSED = "refused"


class SinkRunner:
    """One sink of one process."""

    def __init__(
        self,
        sink: Consumption,
        target: Target,
        link: Link,
        *,
        reading_of: ReadingOf,
        stage: Stage = "sink",
        observer: SinkObserver,
        rng: random.Random,
        wall_clock: Callable[[], float],
    ) -> None:
        """
        Args:
            sink: its section of the events file; a rule is run like a sink.
            target: what it writes to.
            link: the connection to NATS.
            reading_of: makes its way through the stream.
            stage: of its dead letters.
            observer: hooks for metrics.
            rng: source of jitter.
            wall_clock: Unix seconds, to say how far behind the sink is.
        """
        self.sink = sink
        self._target = target
        self._reading_of = reading_of
        self._observer = observer
        self._rng = rng
        self._letterbox = Letterbox(link, stage, sink.name)
        self._reading: Reading | None = None
        self._batch = sink.batch
        self._lag = Lag(link, sink.subjects, rng=rng, wall_clock=wall_clock)
        self._progress = Progress(sink, link, self._lag, observer)
        self.state = State.OPENING
        self.trouble = ""
        """Why it is not running, in words; empty while it is."""

    # What is shown

    @property
    def name(self) -> str:
        return self.sink.name

    @property
    def running(self) -> bool:
        """Whether this process owns the sink and writes."""
        return self.state is State.RUNNING

    @property
    def position(self) -> int:
        """The last stream sequence that is processed."""
        return self._progress.seq

    @property
    def lag_messages(self) -> float:
        """Events in the stream that are not yet written; NaN if that is not known."""
        return self._lag.messages(self._pending)

    @property
    def lag_s(self) -> float:
        """How long ago the oldest event that is not yet written was stored; NaN as above."""
        return self._lag.seconds(self._pending)

    @property
    def retention_used(self) -> float:
        """The lag as a share of how long the stream keeps an event. At 1 events are lost."""
        return self._lag.retention_used(self._pending)

    @property
    def _pending(self) -> int | None:
        return self._reading.pending if self._reading is not None else None

    # Running

    async def check(self) -> None:
        """Open the target once, so that a problem is reported at the start.

        Raises:
            TargetRefused: it refuses. A target that is merely away is no error.
        """
        try:
            await self._target.open()
        except TargetAway as exc:
            self._say(State.OPENING, str(exc))
        finally:
            await self._target.close()

    async def run(self) -> None:
        """Carry events until cancelled.

        Raises:
            PositionError: the stream is not the one this sink has read.
        """
        watching = asyncio.create_task(
            self._lag.watch(self.name, lambda: self._progress.position, lambda: self._pending),
            name=f"sink-lag-{self.name}",
        )
        try:
            await self._run()
        finally:
            await _ended([watching])

    async def _run(self) -> None:
        failures = 0
        while True:
            wait_s = 0.0
            before = self.position
            try:
                await self._target.open()
                await self._own()
                await self._carry()
            except ConsumerError as exc:
                if self.position > before:
                    failures = 0
                failures += 1
                self._failed(exc)
                wait_s = self._wait_s(exc, failures)
            finally:
                self._reading = None
                with contextlib.suppress(ConsumerError):
                    await self._target.close()
            await asyncio.sleep(wait_s)

    def _wait_s(self, error: ConsumerError, failures: int) -> float:
        if isinstance(error, NotOwner):
            return self._rng.uniform(0, _CLAIM_S)
        ceiling_s = _REFUSED_RETRY_MAX_S if isinstance(error, TargetRefused) else _RETRY_MAX_S
        return full_jitter_s(
            self._rng, failures, first_s=_RETRY_S, max_s=ceiling_s, least_s=_RETRY_S / 2
        )

    def _failed(self, error: ConsumerError) -> None:
        state = State.REFUSED if isinstance(error, TargetRefused) else State.OPENING
        if isinstance(error, NotOwner):
            state = State.STANDING_BY
        self._say(state, str(error))

    def _say(self, state: State, trouble: str) -> None:
        """Log a change of state, and not each of a thousand attempts."""
        if (state, trouble) != (self.state, self.trouble):
            level = logging.ERROR if state is State.REFUSED else logging.WARNING
            if not trouble:
                level = logging.INFO
            _log.log(
                level, "sink_state", sink=self.sink.name, state=state.value, reason=trouble or None
            )
        self.state, self.trouble = state, trouble

    async def _own(self) -> None:
        """Wait until this process owns the sink, and know its position."""
        while True:
            mine, position = await self._target.claim()
            if mine:
                break
            self._say(State.STANDING_BY, "another process owns it")
            await asyncio.sleep(self._rng.uniform(_CLAIM_S / 2, _CLAIM_S))
        fresh = position is None
        if position is None:
            position = await self._progress.first()
            await self._target.begin(position)
        self._progress.begins(position, in_doubt=not fresh)

    async def _carry(self) -> None:
        """Read and write side by side until something ends it."""
        name = self.sink.name
        self._reading = reading = self._reading_of(self.sink, self._progress)
        flow = _Flow(self._target.ahead)
        self._say(State.RUNNING, "")
        side_by_side = [
            asyncio.create_task(reading.run(), name=f"sink-read-{name}"),
            asyncio.create_task(self._beat(), name=f"sink-beat-{name}"),
            asyncio.create_task(self._hand(reading, flow), name=f"sink-hand-{name}"),
            asyncio.create_task(self._write(reading, flow), name=f"sink-write-{name}"),
        ]
        try:
            done, _ = await asyncio.wait(side_by_side, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await _ended(side_by_side)
            try:
                with contextlib.suppress(ConsumerError):
                    await self._target.release()  # first: the next owner waits for this alone
            finally:
                await reading.close()

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            # All at one moment, so that those of a hundred rules are written together.
            await asyncio.sleep(BEAT_S - (loop.time() - BEAT_S / 2) % BEAT_S)
            await self._target.beat()

    async def _hand(self, reading: Reading, flow: "_Flow") -> None:
        """Give the target batch after batch, some of them before the first one is written."""
        while True:
            await flow.room.acquire()
            portion = await reading.gather(self._batch)
            self._target.hand(portion.events)
            flow.handed.put_nowait(portion)

    async def _write(self, reading: Reading, flow: "_Flow") -> None:
        """Settle the batches that the target was given, in order."""
        sink, progress = self.sink, self._progress
        position = progress.position
        assert position is not None
        loop = asyncio.get_running_loop()
        while True:
            portion = await flow.handed.get()
            began = loop.time()
            events, last = portion.events, portion.last
            after = Position(position.created, last.stream_seq, last.message_id)
            try:
                buried = await self._target.write(events, after, self._bury)
            except ConsumerError as exc:
                if isinstance(exc, TargetSlow):
                    self._batch = max(1, len(events) // 2)
                self._observer.repeated(sink.name, events, str(exc), loop.time() - began)
                raise
            progress.moved(after, last)
            reading.processed()
            flow.room.release()
            if self._batch < sink.batch:
                self._batch = min(sink.batch, self._batch * 2)
            if events:
                self._observer.written(sink.name, events, buried, loop.time() - began)

    async def _bury(self, rejected: Sequence[Rejected]) -> None:
        in_doubt = self._progress.doubts(rejected[0].event)
        await self._letterbox.store(rejected, in_doubt=in_doubt)


class _Flow:
    """Batches between the task that gives them to the target and the one that settles them."""

    __slots__ = ("handed", "room")

    def __init__(self, ahead: int) -> None:
        self.handed: asyncio.Queue[Portion] = asyncio.Queue()
        self.room = asyncio.Semaphore(ahead)
        """Permits for batches that are not settled, so it bounds `handed`."""


async def _ended(side_by_side: Sequence[asyncio.Task[None]]) -> None:
    """End tasks; again, if nats-py swallows their cancellation."""
    await tasks.end(*side_by_side)
    await asyncio.gather(*(each for each in side_by_side if each.done()), return_exceptions=True)
