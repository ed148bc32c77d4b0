"""Where a device's outbox goes on: answered from memory if that is certain, else from the stream.

`standing.py` has the rule and what is remembered; `stored.py` asks the stream. If the stream does
not answer, the device gets its `welcome` nevertheless, which tells it of the hold. Then its lane
asks before it publishes anything of that outbox.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from msgspec import UNSET

from gateway.stream.lanes.standing import Resume, Standings
from gateway.stream.lanes.stored import StoredSeqs
from tidegate.wire.frames import Hello

_PATIENCE_S: Final = 1.0


class ResumePoints:
    """Answers `hello`: where each outbox stands."""

    def __init__(
        self,
        standings: Standings,
        stored: StoredSeqs,
        *,
        credit_max: int,
        rejecting: bool = False,
        clock: Callable[[], float],
        on_lookup: Callable[[], None],
    ) -> None:
        """
        Args:
            standings: what this node knows.
            stored: asks the stream.
            credit_max: messages a device may have outstanding.
            rejecting: whether schemas reject messages: a message that was sent before may be in
                either stream then, so the stream is asked whenever there may be one.
            clock: monotonic seconds, that of the lanes.
            on_lookup: called for each answer that needs the stream.
        """
        self._standings = standings
        self._stored = stored
        self._credit_max = credit_max
        self._rejecting = rejecting
        self._clock = clock
        self._on_lookup = on_lookup

    def known(self, tenant: str, device: str, hello: Hello) -> int | None:
        """The last settled seq of `hello.outbox`, at least `oldest - 1`, if it is certain."""
        now = self._clock()
        standing = self._standings.of(tenant, device, hello.outbox, now)
        told = _told(hello)
        if self._rejecting and told.in_doubt:
            return None
        seq = standing.resume(told, now)
        if seq is not None:
            standing.doubt(told, seq, self._credit_max)
        return seq

    async def look_up(self, tenant: str, device: str, hello: Hello) -> int:
        """As `known`, from the stream; `oldest - 1` if it does not answer within a second."""
        self._on_lookup()
        told = _told(hello)
        standing = self._standings.of(tenant, device, hello.outbox, self._clock())
        try:
            async with asyncio.timeout(_PATIENCE_S):
                stored, asked_at = await self._stored.last_seq(tenant, device, hello.outbox)
        except TimeoutError:
            standing.doubt_all(forget=self._rejecting)
            return told.oldest - 1
        standing.found(stored, asked_at)
        seq = max(told.oldest - 1, stored)
        if told.sent is not None:
            seq = min(seq, told.sent)
        standing.doubt(told, seq, self._credit_max)
        return seq


def _told(hello: Hello) -> Resume:
    return Resume(hello.oldest, hello.age_ms, None if hello.sent is UNSET else hello.sent)
