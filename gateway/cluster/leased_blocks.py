"""The slots that a node holds: blocks of consecutive slots, as leases bring them. Pure."""

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

_CRUMB: Final = 1e-6


@dataclass(slots=True)
class Block:
    """Consecutive slots. `units` may be fractional: a resume costs half a slot."""

    slot: float
    units: float
    step: float


class Blocks:
    """Leased slots, ordered by time."""

    def __init__(self) -> None:
        self._blocks: deque[Block] = deque()
        self.units = 0.0

    @property
    def next_slot(self) -> float:
        return self._blocks[0].slot if self._blocks else math.inf

    def add(self, block: Block) -> None:
        self._blocks.append(block)
        self.units += block.units

    def take(self, cost: float) -> float:
        """The first slot. If its block is too small for the cost, the next block pays the rest."""
        slot = self._blocks[0].slot
        self.units -= cost
        while cost > 0 and self._blocks:
            block = self._blocks[0]
            part = min(cost, block.units)
            cost -= part
            block.units -= part
            block.slot += part * block.step
            if block.units < _CRUMB:
                self._blocks.popleft()
        return slot

    def drop_before(self, earliest: float) -> None:
        """Drop slots that are older than the burst allows."""
        while self._blocks and self._blocks[0].slot < earliest:
            block = self._blocks[0]
            stale = min(block.units, math.ceil((earliest - block.slot) / block.step))
            block.slot += stale * block.step
            block.units -= stale
            self.units -= stale
            if block.units >= _CRUMB:
                return
            self._blocks.popleft()

    def clear(self) -> None:
        self._blocks.clear()
        self.units = 0.0
