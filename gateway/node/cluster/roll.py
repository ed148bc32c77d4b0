"""Which nodes of the fleet are alive, as the last heartbeat has told, and what hears of doubts."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gateway.node.hook import Hook


@dataclass(frozen=True, slots=True)
class Alive:
    """Which nodes of a fleet are alive."""

    names: frozenset[str]
    """This node is one of them."""
    at: float
    """When that was so: fleet time, seconds."""
    silence_s: float
    """A node that is silent for so long is gone."""


class Roll:
    """The nodes that are alive."""

    def __init__(self, node: str, *, silence_s: float, clock: Callable[[], float]) -> None:
        """
        Args:
            node: name of this process.
            silence_s: a node that is silent for so long is gone.
            clock: fleet time, seconds.
        """
        self._node = node
        self._silence_s = silence_s
        self._clock = clock
        self.alive: Alive | None = None
        """None until all nodes of before are back, or gone."""
        self.doubted: Hook[[]] = Hook()
        """The others may have taken this node for dead, or its fences are of another time."""

    def heard(self, others: Iterable[str], *, together: bool) -> None:
        """A heartbeat named the other nodes.

        Args:
            others: their names.
            together: whether the fleet is complete.
        """
        names = frozenset((self._node, *others))
        self.alive = Alive(names, self._clock(), self._silence_s) if together else None
