"""How a consumer reads its stream: what it is given, and the reader that is its own."""

import random
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from gateway.consumers.progress import Progress
from gateway.consumers.target import Consumption
from gateway.events.event import Event
from gateway.stream.names import EVENTS
from gateway.stream.reading.reader import Link, StreamReader


class Portion(Struct):
    """Events to process together. Once they are, everything up to `last` is processed."""

    events: list[Event]
    """Those of this consumer, in stream order; perhaps none."""
    last: Event


class Reading(Protocol):
    """One consumer's way through the stream, from its position on, for as long as it runs."""

    @property
    def pending(self) -> int | None:
        """Events in the stream that are not processed, None while the server has not said it."""

    async def run(self) -> None:
        """Read until cancelled.

        Raises:
            PositionError: the stream is not the one that the consumer has read.
            TargetAway: there is no stream.
        """

    async def gather(self, events_max: int) -> Portion:
        """The next events."""

    def processed(self) -> None:
        """The first portion that was gathered, and not yet processed, is processed."""

    async def close(self) -> None:
        """Stop reading. Raises nothing."""


ReadingOf = Callable[[Consumption, Progress], Reading]
"""Makes the reading of a consumer, from its position on."""


class OwnReading:
    """A reader for one consumer, which gets every event of its filters. Satisfies `Reading`."""

    def __init__(
        self, consumer: Consumption, progress: Progress, link: Link, rng: random.Random
    ) -> None:
        """
        Args:
            consumer: its section of the events file.
            progress: where it stands.
            link: the connection to NATS.
            rng: source of jitter.
        """
        self._consumer = consumer
        self._reader: StreamReader[Event] = StreamReader(
            link,
            EVENTS,
            consumer.subjects,
            start=progress.start,
            make=Event,
            room_messages=2 * consumer.batch,
            room_bytes=consumer.batch_bytes,
            rng=rng,
        )

    @property
    def pending(self) -> int | None:
        reader = self._reader
        return reader.pending + len(reader) if reader.begun.is_set() else None

    async def run(self) -> None:
        await self._reader.run()

    async def gather(self, events_max: int) -> Portion:
        consumer = self._consumer
        linger_s = consumer.linger_ms / 1000
        events: list[Event] = []
        while not events:
            events = await self._reader.gather(events_max, consumer.batch_bytes, linger_s)
        return Portion(events, events[-1])

    def processed(self) -> None:
        """The reader has room for more as soon as events are taken from it."""

    async def close(self) -> None:
        """The task that runs it has ended it."""
