"""The nodes of a simulated fleet."""

import math
import random


class Nodes:
    """Which nodes live, and when the desk of each must be polled."""

    def __init__(self, count: int) -> None:
        self.alive = [True] * count
        self.polls = [math.inf] * count

    def fail(self) -> None:
        """The first node dies. Its desk is polled no less: its waiters have their outcome."""
        self.alive[0] = False

    def another(self, rng: random.Random) -> int:
        """A node that lives."""
        return rng.choice([node for node, alive in enumerate(self.alive) if alive])
