"""What a sink writes to, as the sink sees it. PostgreSQL is one, files are another.

A target keeps the sink's position together with what it wrote, so that both are there or neither.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final, NamedTuple, Protocol

from gateway.events.event import Event
from gateway.events.position import Position

BEAT_S: Final = 1.0


class Consumption(Protocol):
    """What the events file says of a sink or a rule, as far as its runner is concerned."""

    @property
    def name(self) -> str:
        """Its name, which owns its position."""

    @property
    def subjects(self) -> tuple[str, ...]:
        """Filter subjects for the server, without overlaps."""

    @property
    def start(self) -> str | datetime:
        """Where it begins without a position: `start`, `now`, or a time."""

    @property
    def batch(self) -> int:
        """Events that are written together, at most."""

    @property
    def batch_bytes(self) -> int:
        """Bytes of them."""

    @property
    def linger_ms(self) -> int:
        """How long the first event of a batch waits for others."""


class Rejected(NamedTuple):
    """An event that the target can never take."""

    event: Event
    error: str
    """A short word: `column`, or the SQLSTATE's name."""
    detail: str


class SinkObserver(Protocol):
    """Hooks for metrics. Names of sinks come from the operator's file."""

    def written(self, sink: str, events: Sequence[Event], buried: int, took_s: float) -> None:
        """A batch was committed: these events, of which so many became dead letters."""

    def repeated(self, sink: str, events: Sequence[Event], error: str, took_s: float) -> None:
        """A batch with these events was not committed, and is written again; `error` says why."""

    def expired(self, sink: str, sequences: int) -> None:
        """So many sequences left the stream before the sink had read them."""


Bury = Callable[[Sequence[Rejected]], Awaitable[None]]
"""Stores dead letters. Returns once all of them are acknowledged."""


class Target(Protocol):
    """Raises TargetAway, TargetRefused and NotOwner from every method but `close`."""

    async def open(self) -> None:
        """Connect, and check that the sink fits what is there."""

    async def claim(self) -> tuple[bool, Position | None]:
        """Try to own the sink. Called again and again until it succeeds.

        Returns:
            Whether this process owns it, and then the position, None for a sink that has none yet.
        """

    async def beat(self) -> None:
        """Show that the owner lives. Called every `BEAT_S`, beside a `write` too."""

    async def begin(self, position: Position) -> None:
        """Record where a sink without a position begins."""

    @property
    def ahead(self) -> int:
        """How many batches may be handed to it before the first of them is written."""

    def hand(self, events: Sequence[Event]) -> None:
        """A batch is about to be written: begin, if the target can while it writes another.

        Each batch that is handed is written afterwards, in the same order.
        """

    async def write(self, events: Sequence[Event], after: Position, bury: Bury) -> int:
        """Write a batch and move the position, both or neither.

        Args:
            events: in stream order, beyond the position.
            after: the position once they are written.
            bury: takes the events that do not fit, before the position moves past them.

        Returns:
            How many were buried.
        """

    async def release(self) -> None:
        """Let the next owner in at once."""

    async def close(self) -> None:
        """Give up the connection. Raises nothing."""
