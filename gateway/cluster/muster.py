"""Whether the fleet is complete again after Redis was away. Pure.

A Redis that lost its memory knows only the nodes that have found it again. If the first of them
took the whole of R while the others go on with their shares, the fleet would admit too many; if
Redis went away again at once, each would take itself for the only one. So everybody keeps to its
share until as many are back as there were, or those still missing have been silent for long enough
to be gone.
"""


class Muster:
    """Counts the nodes of a fleet, and does not forget those who may come back."""

    __slots__ = ("_deadline", "_timeout_s", "complete", "nodes")

    def __init__(self, timeout_s: float, *, nodes: int = 1) -> None:
        """
        Args:
            timeout_s: a node silent for this long is gone.
            nodes: how many there are taken to be until Redis has been heard.
        """
        self._timeout_s = timeout_s
        self._deadline: float | None = None
        self.complete = True
        self.nodes = nodes
        """How many share R."""

    def lost(self) -> None:
        """Redis is away."""
        self.complete = False
        self._deadline = None

    def heard(self, nodes: int, now: float) -> None:
        """Redis knows so many nodes, at `now` of any clock in seconds."""
        if not self.complete:
            if self._deadline is None:
                self._deadline = now + self._timeout_s
            self.complete = nodes >= self.nodes or now >= self._deadline
        if self.complete:
            self.nodes = nodes
