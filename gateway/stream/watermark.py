"""The resume watermark: how far a device's outbox has come in the stream.

JetStream remembers message ids for the duplicate window. A device that was away for longer would
have its unacknowledged messages stored a second time, if they had been stored and only the ack was
lost. So it is asked nothing; the last message of its subjects says where the stream stands, since a
device's messages are stored in order. Looked up only for who needs it, so many at once, and
remembered for a moment, since a flapping device asks again and again.
"""

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import nats.errors
import nats.js.errors
import structlog
from msgspec import UNSET
from nats.aio.client import Client

from gateway.session.frames import Hello
from gateway.stream.encoding import DEADLETTERS, EVENTS

_log = structlog.get_logger(__name__)

_CACHE_MAX: Final = 20_000
_CACHE_S: Final = 5.0
_RETRY_S: Final = 1.0
_TIMEOUT_S: Final = 5.0
_MARGIN: Final = 0.5
"""Share of the duplicate window after which a device is looked up: its first repeats must still be
within the window, and its clock may be off."""


class Watermarks:
    """Last settled seqs, from the stream."""

    def __init__(
        self,
        client: Callable[[], Client | None],
        *,
        duplicate_window_s: float,
        concurrency: int,
        rng: random.Random,
        clock: Callable[[], float],
        on_lookup: Callable[[], None],
    ) -> None:
        """
        Args:
            client: the live connection, or None.
            duplicate_window_s: of the stream.
            concurrency: look-ups at once.
            rng: source of jitter between attempts.
            clock: monotonic seconds.
            on_lookup: called for each look-up that is not answered from memory.
        """
        self._client = client
        self._needed_ms = duplicate_window_s * 1000 * _MARGIN
        self._slots = asyncio.Semaphore(concurrency)
        self._rng = rng
        self._clock = clock
        self._on_lookup = on_lookup
        self._cache: OrderedDict[tuple[str, str, str], tuple[float, int]] = OrderedDict()

    def known(self, _tenant: str, _device: str, hello: Hello) -> int | None:
        """The last settled seq of the outbox, or None if the stream must be asked."""
        nothing_in_doubt = hello.sent is not UNSET and hello.sent < hello.oldest
        return hello.oldest - 1 if nothing_in_doubt or hello.age_ms <= self._needed_ms else None

    async def look_up(self, tenant: str, device: str, hello: Hello) -> int:
        """The last settled seq of the outbox, as the stream and the dead letters have it.

        Waits while the stream does not answer: to guess would be to store something twice.
        """
        return max(hello.oldest - 1, await self._last_seq(tenant, device, hello.outbox))

    async def _last_seq(self, tenant: str, device: str, outbox: str) -> int:
        key = (tenant, device, outbox)
        known = self._cache.get(key)
        if known is not None and self._clock() - known[0] < _CACHE_S:
            return known[1]
        while True:
            try:
                async with self._slots:
                    self._on_lookup()
                    last = max(
                        await self._last_of(EVENTS, f"events.{tenant}.{device}.>", outbox),
                        await self._last_of(DEADLETTERS, f"deadletters.{tenant}.{device}", outbox),
                    )
            except (nats.errors.Error, TimeoutError) as exc:
                _log.warning("watermark_repeated", error=type(exc).__name__)
                await asyncio.sleep(self._rng.uniform(0, _RETRY_S))
            else:
                self._cache[key] = (self._clock(), last)
                if len(self._cache) > _CACHE_MAX:
                    self._cache.popitem(last=False)
                return last

    async def _last_of(self, stream: str, subject: str, outbox: str) -> int:
        client = self._client()
        if client is None:
            raise nats.errors.ConnectionClosedError
        jetstream = client.jetstream(timeout=_TIMEOUT_S)
        try:
            last = await jetstream.get_last_msg(stream, subject)
        except nats.js.errors.NotFoundError:
            return 0
        message_id = (last.headers or {}).get("Nats-Msg-Id", "")
        _tenant, _device, stored_outbox, seq = (message_id.split(":") + [""] * 4)[:4]
        return int(seq) if stored_outbox == outbox and seq.isdecimal() else 0
