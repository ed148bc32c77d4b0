"""How far a sink is behind its stream, whether it runs or stands still."""

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from typing import Final

import nats.errors
import structlog

from gateway.consumers.backlog import Backlog, backlog
from gateway.events.event import Event
from gateway.events.position import Position
from gateway.stream.errors import StreamMissing
from gateway.stream.names import EVENTS
from gateway.stream.provisioning.inspection import StreamFacts, stream_facts
from gateway.stream.reading.reader import Link

_log = structlog.get_logger(__name__)

_ASK_S: Final = 4.0
_NS: Final = 1_000_000_000


class Lag:
    """One sink's lag: from the reader while there is one, else from a count asked of the stream.

    NaN means "not known": another process owns the sink, or the target was never reached.
    """

    def __init__(
        self,
        link: Link,
        subjects: Sequence[str],
        *,
        rng: random.Random,
        wall_clock: Callable[[], float],
    ) -> None:
        """
        Args:
            link: the connection to NATS.
            subjects: what the sink reads.
            rng: source of jitter.
            wall_clock: Unix seconds.
        """
        self._link = link
        self._subjects = subjects
        self._rng = rng
        self._wall_clock = wall_clock
        self._backlog: Backlog | None = None
        self._kept_s = 0.0
        self._written_at_ns = 0

    def messages(self, pending: int | None) -> float:
        """Events in the stream that are not yet written.

        Args:
            pending: how many its reader says, None if there is no reader that knows it.
        """
        if pending is not None:
            return pending
        return self._backlog.messages if self._backlog is not None else math.nan

    def seconds(self, pending: int | None) -> float:
        """How long ago the oldest event that is not yet written was stored."""
        if self._backlog is None:
            return math.nan
        oldest_at_s = max(self._backlog.oldest_at_s, self._written_at_ns / _NS)
        if not self.messages(pending) or not self._backlog.oldest_at_s:
            return 0.0
        return max(0.0, self._wall_clock() - oldest_at_s)

    def retention_used(self, pending: int | None) -> float:
        """The lag as a share of how long the stream keeps an event. At 1 events are lost."""
        return self.seconds(pending) / self._kept_s if self._kept_s else 0.0

    def stream_is(self, facts: StreamFacts) -> None:
        """The stream was looked at."""
        self._kept_s = facts.max_age_s

    def written(self, last: Event) -> None:
        """Everything up to `last` is written."""
        self._written_at_ns = last.stored_at_ns

    async def watch(
        self, name: str, position: Callable[[], Position | None], pending: Callable[[], int | None]
    ) -> None:
        """Ask the stream again and again, until cancelled.

        Args:
            name: of the sink.
            position: where it is, once that is known.
            pending: as for `messages`.
        """
        while True:
            client, now_at = self._link.client, position()
            if client is not None and now_at is not None:
                try:
                    self._backlog = await backlog(
                        client, EVENTS, self._subjects, now_at.seq, messages=pending()
                    )
                    self.stream_is(await stream_facts(client, EVENTS))
                except (StreamMissing, nats.errors.Error, TimeoutError) as exc:
                    _log.debug("backlog_unknown", sink=name, error=str(exc))
            await asyncio.sleep(self._rng.uniform(_ASK_S / 2, _ASK_S))
