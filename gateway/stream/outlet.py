"""One session's way into the stream: its headers, its lane."""

from collections.abc import Callable

from gateway.stream.encoding import SourceHeaders
from gateway.stream.lane import Owner
from gateway.stream.publisher import Publisher

Sampler = Callable[[], bytes]
"""Gives the traceparent header line of a sampled message, or nothing."""


class SessionOutlet:
    """Turns a session's messages into envelopes and submits them in order."""

    __slots__ = ("_device", "_headers", "_lane_index", "_owner", "_publisher", "_sample")

    def __init__(
        self,
        publisher: Publisher,
        sample: Sampler,
        *,
        tenant: str,
        device: str,
        outbox: str,
        owner: Owner,
    ) -> None:
        self._publisher = publisher
        self._sample = sample
        self._device = f"{tenant}.{device}"
        self._lane_index = publisher.lane_of(self._device)
        self._headers = SourceHeaders(tenant, device, outbox)
        self._owner = owner

    def message(self, seq: int, message_type: str, time: str, data: bytes) -> None:
        """Store a message in EVENTS."""
        envelope = self._headers.event(seq, message_type, time, data, self._sample())
        self._publisher.submit(self._owner, self._lane_index, self._device, seq, envelope)

    def dead_letter(self, seq: int, error: str, detail: str, time: str, raw: bytes) -> None:
        """Store what cannot be an event in DEADLETTERS, in its place in the order."""
        envelope = self._headers.dead_letter(seq, error, detail, time, raw)
        self._publisher.submit(
            self._owner, self._lane_index, self._device, seq, envelope, (error, detail)
        )

    @property
    def full(self) -> bool:
        return self._publisher.full

    def when_drained(self, callback: Callable[[], None]) -> None:
        self._publisher.when_drained(callback)
