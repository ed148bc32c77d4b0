"""Asks REDRIVES for its end, once for all consumers of a process, and wakes their carriers."""

import asyncio
import random
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, Final

import nats.errors
import structlog

from gateway.consumers.letters.redrive_carrier import RedriveCarrier
from gateway.events.redrives import REDRIVES
from gateway.stream.errors import StreamMissing
from gateway.stream.provisioning.inspection import stream_facts
from gateway.stream.reading.reader import Link

_log = structlog.get_logger(__name__)

_WATCH_S: Final = 2.0


class RedriveWatch:
    """Asks REDRIVES for its end, once for all consumers of a process."""

    def __init__(self, carriers: Sequence[RedriveCarrier], link: Link, rng: random.Random) -> None:
        self._carriers = tuple(carriers)
        self._link = link
        self._rng = rng

    def work(self) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
        """The watch, and each carrier, side by side."""
        yield "redrive-watch", self.run()
        for carrier in self._carriers:
            yield f"redrives-{carrier.name}", carrier.run()

    async def run(self) -> None:
        """Wake the carriers whenever something was added, until cancelled."""
        known = ("", 0)
        while True:
            try:
                facts = await stream_facts(await self._link.wait_up(), REDRIVES)
            except StreamMissing:
                pass  # the first redrive makes it
            except (nats.errors.Error, TimeoutError) as exc:
                _log.debug("redrives_unknown", error=str(exc))
            else:
                if known != (facts.created, facts.last_seq):
                    known = (facts.created, facts.last_seq)
                    for carrier in self._carriers:
                        carrier.wake(facts.last_seq)
            await asyncio.sleep(self._rng.uniform(_WATCH_S / 2, _WATCH_S))
