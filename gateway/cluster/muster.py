"""Whether all nodes of the fleet have come back after Redis was away. Pure.

A Redis that lost its memory knows only the nodes that have connected again. If the first of them
used all of R while the others still use their shares, the fleet would admit too many devices. If
Redis went away again at once, each node would take itself for the only one. So each node uses its
share only, until as many nodes are back as there were before, or until the missing nodes have been
silent for so long that they count as gone.
"""


class Muster:
    """Counts the nodes of a fleet, including those that may still come back."""

    __slots__ = ("_deadline", "complete", "nodes", "timeout_s")

    def __init__(self, timeout_s: float, *, nodes: int = 1) -> None:
        """
        Args:
            timeout_s: a node that is silent for this long is gone.
            nodes: how many nodes to assume until Redis has answered.
        """
        self.timeout_s = timeout_s
        self._deadline: float | None = None
        self.complete = True
        self.nodes = nodes
        """How many nodes share R."""

    def lost(self) -> None:
        """Redis does not answer."""
        self.complete = False
        self._deadline = None

    def heard(self, nodes: int, now: float) -> None:
        """Redis knows so many nodes, at `now` of any clock in seconds."""
        if not self.complete:
            if self._deadline is None:
                self._deadline = now + self.timeout_s
            self.complete = nodes >= self.nodes or now >= self._deadline
        if self.complete:
            self.nodes = nodes
