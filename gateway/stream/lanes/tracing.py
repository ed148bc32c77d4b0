"""What the room tells whoever records traces. It knows no library of traces.

Nothing here is called for a message that is not sampled, but `Sampler`, once a frame.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from gateway.session.intake import Storable
from tidegate.wire.traceparent import Traceparent


class MessageTrace(Protocol):
    """The span of one sampled message, from its receipt on."""

    @property
    def header(self) -> bytes:
        """Its `traceparent`, a complete header line."""

    def link(self, batch: Traceparent) -> None:
        """The message was in the batch of this span."""

    def settled(self, reject: str) -> None:
        """The message is stored; in the dead letters, if `reject` says why."""

    def superseded(self) -> None:
        """The message is dropped, because a newer session of its device sends it again."""


class BatchTraces(Protocol):
    """Records batches that carry sampled messages."""

    def landed(
        self, traces: Sequence[MessageTrace], kind: str, messages: int, took_s: float, trouble: str
    ) -> None:
        """A batch was answered, or will not be answered any more.

        Args:
            traces: of its sampled messages.
            kind: one of batch.Kind.
            messages: how many the batch had.
            took_s: from publishing to the answer.
            trouble: why messages of it must be repeated; empty if all are settled.
        """


Key = tuple[str, str, str]
"""Tenant, device and outbox."""
Sampler = Callable[[Sequence[Storable], Key], Mapping[int, MessageTrace] | None]
"""Begins the spans of those messages of a frame that are sampled; by `seq`."""
