"""Publishes the messages of a node: its lanes, over one NATS connection, and their bounds."""

import random
import zlib
from collections.abc import Callable
from time import perf_counter
from typing import Final

from gateway import tasks
from gateway.stream.lanes.backlog import Backlog
from gateway.stream.lanes.batch import Strategy
from gateway.stream.lanes.lane import Lane
from gateway.stream.lanes.limits import PublishLimits
from gateway.stream.lanes.runner import LaneRunner
from gateway.stream.lanes.settlements import Settlements
from gateway.stream.lanes.standing import Standings
from gateway.stream.lanes.stored import StoredSeqs
from gateway.stream.lanes.tracing import BatchTraces
from gateway.stream.link.client import LinkClient
from gateway.stream.observer import StreamObserver
from gateway.stream.server.roles import Role

_NO_RESPONDERS: Final = b"NATS/1.0 503"


class Publisher:
    """All lanes of a node."""

    def __init__(
        self,
        limits: PublishLimits,
        *,
        node: str,
        observer: StreamObserver,
        on_failure: Callable[[BaseException], None],
        rng: random.Random,
        traces: BatchTraces | None = None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        """
        Args:
            limits: bounds and times.
            node: random name of this process; makes batch ids and inboxes unique.
            observer: hooks for metrics.
            on_failure: hears of an error that leaves messages waiting for ever.
            rng: source of jitter.
            traces: hooks for traces; None if no message is sampled.
            clock: monotonic seconds.
        """
        self._limits = limits
        self._clock = clock
        self._client: LinkClient | None = None
        self._crew = tasks.Crew(on_failure)
        self._inbox = f"{Role.GATEWAY.inbox_prefix}.{node}."
        self._lane_at = len(self._inbox) + len(node) + 1
        self.pending = Backlog(
            messages_max=limits.pending_messages_max, bytes_max=limits.pending_bytes_max
        )
        """What is held, and its bounds."""
        self.standings = Standings(limits.duplicate_window_s)
        """What is known of the outboxes that publish here."""
        self.stored = StoredSeqs(
            lambda: self._client,
            concurrency=limits.lookups,
            timeout_s=limits.question_timeout_s,
            rng=rng,
            clock=clock,
        )
        """Asks the streams how far an outbox has come."""
        self._settlements = Settlements(self.pending, observer, traces)
        self._runners = [
            LaneRunner(
                self._new_lane(),
                f"{node}-{index}",
                inbox=self._inbox,
                limits=limits,
                backlog=self.pending,
                settlements=self._settlements,
                stored=self.stored,
                crew=self._crew,
                rng=rng,
                clock=clock,
            )
            for index in range(limits.lanes)
        ]

    def _new_lane(self) -> Lane:
        limits = self._limits
        return Lane(
            batch_messages_max=limits.batch_messages_max,
            batch_bytes_max=limits.batch_bytes_max,
            duplicate_window_s=limits.duplicate_window_s,
            dispose=self._settlements.dispose,
        )

    def lane_of(self, device: str) -> LaneRunner:
        """The lane of a device, for as long as this process lives."""
        return self._runners[zlib.crc32(device.encode()) % len(self._runners)]

    # The connection

    async def on_up(self, client: LinkClient) -> None:
        """A fresh connection: hear the answers on it."""
        await client.subscribe_raw(self._inbox + ">", self._on_reply)

    def on_ready(self, client: LinkClient) -> None:
        """That connection is in use now: go on with what waits."""
        self._client = client
        for runner in self._runners:
            runner.when_ready(client)

    def on_down(self) -> None:
        """The connection is lost."""
        self._client = None
        for runner in self._runners:
            runner.when_down()

    def look(self) -> None:
        """This turn of the loop takes long: hear what is answered by now, and send what waits."""
        client, runners = self._client, self._runners
        if client is not None and any(runner.lane.in_flight is not None for runner in runners):
            client.look()
        for runner in runners:
            runner.turn_over()

    def _on_reply(
        self, subject: bytes, _reply: bytes, data: bytes, headers: bytes | None
    ) -> None:  # fmt: skip
        """An answer; its subject is the inbox, `node-lane-batch`, and the place of the message."""
        batch, _, place = subject[self._lane_at :].partition(b".")
        lane, _, number = batch.partition(b"-")
        self._runners[int(lane)].on_reply(
            int(number),
            int(place) if place.isdigit() else 0,
            data,
            responders=headers is None or not headers.startswith(_NO_RESPONDERS),
        )

    # State

    @property
    def strategy(self) -> Strategy:
        """How batches are published; plain until somebody knows what the server can do."""
        return self._runners[0].lane.strategy

    @strategy.setter
    def strategy(self, strategy: Strategy) -> None:
        for runner in self._runners:
            runner.lane.strategy = strategy

    @property
    def trouble(self) -> str | None:
        """Why nothing is being stored right now, or None."""
        if self._client is None:
            return "nats_disconnected"
        lanes = [runner.lane for runner in self._runners]
        if any(lane.failures > 1 for lane in lanes):
            return f"stream_{self._settlements.last_reason}"
        if self.stored.failing and any(lane.asking for lane in lanes):
            return "stream_timeout"
        if any(age_s > self._limits.hold_after_s for age_s in self._in_flight_s()):
            return "stream_slow"
        return None

    def _in_flight_s(self) -> list[float]:
        """How long each batch in flight has waited for its answer, in seconds."""
        now = self._clock()
        batches = (runner.lane.in_flight for runner in self._runners)
        return [now - batch.started_at for batch in batches if batch is not None]

    def signals(self) -> dict[str, float]:
        """How hard storing is: p99 of batches since the last call (s), share of the bounds used."""
        # A batch in flight counts as if it were answered now: a stalled stream answers nothing.
        recent = sorted(self._settlements.take_recent() + self._in_flight_s())
        return {
            "puback_p99": recent[min(len(recent) - 1, len(recent) * 99 // 100)] if recent else 0.0,
            "publish_backlog": self.backlog,
        }

    @property
    def asking(self) -> int:
        """Devices whose messages wait until the stream has answered a question."""
        return sum(runner.lane.asking for runner in self._runners)

    @property
    def backlog(self) -> float:
        """Share of the bounds in use."""
        return self.pending.share()

    @property
    def stored_messages(self) -> int:
        """Messages that JetStream has acknowledged to this process."""
        return self._settlements.stored_messages

    @property
    def pending_messages(self) -> int:
        """Messages received and not yet settled."""
        return self.pending.messages

    @property
    def pending_bytes(self) -> int:
        """Bytes of those messages."""
        return self.pending.bytes

    @property
    def lane_loads(self) -> list[tuple[int, int, float]]:
        """Of each lane: messages that wait, messages in flight, and for how many seconds those."""
        now = self._clock()
        loads = []
        for runner in self._runners:
            lane, batch = runner.lane, runner.lane.in_flight
            age_s = now - batch.started_at if batch is not None else 0.0
            loads.append((lane.waiting, lane.flying, age_s))
        return loads

    async def drain(self) -> None:
        """Wait until everything submitted is settled."""
        await self.pending.wait_empty()

    async def close(self) -> None:
        """Stop all timers and questions. What is not settled is not acknowledged; its devices
        resend it.
        """
        self._client = None
        for runner in self._runners:
            runner.close()
        await self._crew.close()
