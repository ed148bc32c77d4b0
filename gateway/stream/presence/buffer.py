"""Presence facts that wait to be stored: in order for each device, and bounded. Pure.

A fact of a session that begins lingers a little, so that facts share batches, and so that the node
which the device has left has written its end before (that fact is prompt). Without a stream, facts
pile up: then of each device only the newest is kept, which is what readers need.
"""

from collections import OrderedDict
from typing import Final

from msgspec import Struct

from gateway.session.presence import Fact, Key, newer

FACTS_A_DEVICE_MAX: Final = 16
"""A device that flaps faster than its facts are stored leaves only its last one."""


class _Waiting(Struct):
    """The facts of one device."""

    due_at: float
    facts: list[Fact]


class FactBuffer:
    """Facts by device, the one that is due first in front."""

    def __init__(self, *, linger_s: float, facts_max: int) -> None:
        """
        Args:
            linger_s: how long facts wait that are not prompt, in seconds.
            facts_max: how many may wait; beyond it, facts of one device become one, and then the
                oldest are dropped.
        """
        self.linger_s = linger_s
        self._facts_max = facts_max
        self._prompt: OrderedDict[Key, _Waiting] = OrderedDict()
        self._lingering: OrderedDict[Key, _Waiting] = OrderedDict()
        self._several: dict[Key, None] = {}
        """Devices with more than one fact, in the order in which they may be coalesced."""
        self._count = 0
        self.coalesced = 0
        """Facts that were left out because a newer one of their device waits."""
        self.dropped = 0
        """Facts that were left out although they were the newest of their device."""

    def __len__(self) -> int:
        return self._count

    @property
    def due_at(self) -> float | None:
        """When the first fact is due, by the clock of `add`; None if nothing waits."""
        queue = self._first()
        return next(iter(queue.values())).due_at if queue else None

    def add(self, fact: Fact, now: float, *, prompt: bool) -> bool:
        """Keep a fact until it is taken.

        Args:
            fact: of a session of this node, or of a node that is gone.
            now: monotonic seconds.
            prompt: whether it is due at once. Behind a fact of its device that lingers, it waits.

        Returns:
            Whether `due_at` may be earlier now: nothing waited, or nothing prompt did.
        """
        key = fact.key
        first = not self._count
        waiting = self._prompt.get(key) or self._lingering.get(key)
        if waiting is not None:
            waiting.facts.append(fact)
            self._count += 1
            self._several[key] = None
            if len(waiting.facts) > FACTS_A_DEVICE_MAX:
                self._coalesce(key)
        elif prompt:
            first = first or not self._prompt
            self._prompt[key] = _Waiting(now, [fact])
            self._count += 1
        else:
            self._lingering[key] = _Waiting(now + self.linger_s, [fact])
            self._count += 1
        while self._count > self._facts_max:
            self._make_room()
        return first

    def take(self, now: float, facts_max: int) -> list[Fact]:
        """The facts that are due, in order; about `facts_max` at most."""
        taken: list[Fact] = []
        while len(taken) < facts_max:
            queue = self._first()
            if not queue:
                break
            key, waiting = queue.popitem(last=False)
            if waiting.due_at > now:
                queue[key] = waiting
                queue.move_to_end(key, last=False)
                break
            self._several.pop(key, None)
            taken += waiting.facts
        self._count -= len(taken)
        return taken

    def _first(self) -> OrderedDict[Key, _Waiting]:
        """The queue with the fact that is due first, or an empty one."""
        prompt, lingering = self._prompt, self._lingering
        if not prompt or not lingering:
            return prompt or lingering
        of_prompt, of_lingering = next(iter(prompt.values())), next(iter(lingering.values()))
        return prompt if of_prompt.due_at <= of_lingering.due_at else lingering

    def hurry(self) -> None:
        """Nothing lingers any more: the process stops."""
        for waiting in self._lingering.values():
            waiting.due_at = 0.0

    def _make_room(self) -> None:
        if self._several:
            self._coalesce(next(iter(self._several)))
            return
        _key, oldest = (self._lingering or self._prompt).popitem(last=False)
        self._count -= len(oldest.facts)
        self.dropped += len(oldest.facts)

    def _coalesce(self, key: Key) -> None:
        """Keep only the newest fact of a device."""
        waiting = self._prompt.get(key) or self._lingering[key]
        newest = waiting.facts[0]
        for fact in waiting.facts[1:]:
            if newer(fact, newest):
                newest = fact
        left_out = len(waiting.facts) - 1
        waiting.facts = [newest]
        self._count -= left_out
        self.coalesced += left_out
        self._several.pop(key, None)
