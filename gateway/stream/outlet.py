"""One session's way into the stream: its headers, its lane, and what is known of its outbox."""

from collections.abc import Callable
from time import perf_counter

from msgspec import UNSET

from gateway.session.machine import Storable
from gateway.stream.encoding import SourceHeaders
from gateway.stream.lane import Owner, Pending
from gateway.stream.publisher import Publisher
from tidegate.wire.frames import Message, Unusable

Sampler = Callable[[], bytes]
"""Gives the traceparent header line of a sampled message, or nothing."""
Mark = Callable[[str, bytes], bytes]
"""Gives the header line of a message of that type whose `data` does not fit, or nothing."""


class SessionOutlet:
    """Turns a session's messages into envelopes and submits them in order."""

    __slots__ = (
        "_headers",
        "_lane_index",
        "_mark",
        "_owner",
        "_publisher",
        "_sample",
        "_standing",
    )

    def __init__(
        self,
        publisher: Publisher,
        sample: Sampler,
        mark: Mark | None = None,
        *,
        tenant: str,
        device: str,
        outbox: str,
        owner: Owner,
    ) -> None:
        self._publisher = publisher
        self._sample = sample
        self._mark = mark
        self._standing = publisher.standings.of(tenant, device, outbox, perf_counter())
        self._lane_index = publisher.lane_of(self._standing.device)
        self._headers = SourceHeaders(tenant, device, outbox)
        self._owner = owner

    def store(self, messages: list[Storable], received_at: str) -> None:
        """Store events in EVENTS, and in their places in the order what cannot be one in
        DEADLETTERS.

        Args:
            messages: of one frame.
            received_at: RFC 3339; the time of those that bring none.
        """
        headers, sample, mark = self._headers, self._sample, self._mark
        standing, first = self._standing, messages[0].seq
        # Not loop.time(), which uvloop keeps in whole milliseconds.
        absent_at = now = perf_counter()
        if first > standing.doubt_seq:
            if now > standing.renew_at or standing.unsure:
                standing.sent_first(first, now)
        else:
            absent_at = standing.absent_at(first)
            if standing.unsure:
                self._publisher.distrust(self._lane_index, standing)
        items = []
        for message in messages:
            if type(message) is Message:
                time = received_at if message.time is UNSET else message.time
                data = bytes(message.data)
                more = sample() if mark is None else sample() + mark(message.type, data)
                envelope = headers.event(message.seq, message.type, time, data, more)
                reject = None
            else:
                assert isinstance(message, Unusable)
                reject = message.error, message.detail
                envelope = headers.dead_letter(
                    message.seq, *reject, received_at, message.raw, message.original_bytes
                )
            items.append(
                Pending(
                    self._owner,
                    standing,
                    message.seq,
                    envelope,
                    envelope.size,
                    absent_at,
                    reject,
                )
            )
        self._publisher.submit(self._lane_index, items)

    @property
    def full(self) -> bool:
        return self._publisher.full

    def when_drained(self, callback: Callable[[], None]) -> None:
        self._publisher.when_drained(callback)
