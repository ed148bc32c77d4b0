"""Faults while events flow: each kind as often as the others, one in each part of the flow."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Final

from loadtest.errors import TargetError
from loadtest.servers.eventstream import fill

_SETTLE_TIMEOUT_S: Final = 300.0
_LOOK_S: Final = 0.1


class FaultMix:
    """Faults by name. A run is its seed: the same seed picks the same ones in the same order."""

    def __init__(
        self, faults: Mapping[str, Callable[[], Awaitable[None]]], rng: random.Random
    ) -> None:
        self._faults = faults
        self._rng = rng
        self.done: Counter[str] = Counter()
        """How often each was tried."""

    async def next(self) -> None:
        """One fault, of the kinds that were tried least so far."""
        least = min(self.done[name] for name in self._faults)
        name = self._rng.choice([each for each in self._faults if self.done[each] == least])
        self.done[name] += 1
        await self._faults[name]()

    def only(self, names: set[str]) -> None:
        """Leave out the other kinds."""
        self._faults = {name: fault for name, fault in self._faults.items() if name in names}


class Position:
    """How far the processes under test have come, asked again and again."""

    def __init__(self, look: Callable[[], int], mix: FaultMix) -> None:
        """
        Args:
            look: the position now, in events; it may block.
            mix: the faults, which an error names.
        """
        self._look = look
        self._mix = mix

    async def reached(self, wanted: int) -> None:
        """
        Raises:
            TargetError: the position is not reached in time.
        """
        deadline = monotonic() + _SETTLE_TIMEOUT_S
        while (found := await asyncio.to_thread(self._look)) < wanted:
            if monotonic() > deadline:
                raise TargetError(
                    f"position {found:,}, {wanted:,} wanted, in {_SETTLE_TIMEOUT_S:.0f} s;"
                    f" faults so far: {dict(self._mix.done)}"
                )
            await asyncio.sleep(_LOOK_S)


async def flow_through(
    mix: FaultMix,
    position: Position,
    *,
    url: str,
    events: int,
    faults: int,
    payload: Callable[[int], bytes],
) -> None:
    """Store events, and wait until they are processed, with so many faults on the way.

    The events come in parts, one more than faults, and each fault happens while a part flows:
    otherwise a fast process is at the end before the second fault.

    Raises:
        TargetError: not every event was processed in time.
    """
    part = events // (faults + 1)
    for number in range(faults + 1):
        first = number * part
        count = part if number < faults else events - first
        filling = asyncio.create_task(fill(url, first, count, payload=payload))
        try:
            if number < faults:
                await position.reached(first + 1)
                await mix.next()
            await filling
            await position.reached(first + count)
        finally:
            filling.cancel()
            await asyncio.gather(filling, return_exceptions=True)
