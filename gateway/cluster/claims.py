"""Work for one node of a fleet: the first that claims it does it, or the next if that one fails."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from gateway.cluster.link import Argument, RedisLink

TOLERANCE_S: Final = 2.0
"""Nodes see the same thing happen within so many seconds."""
_KEPT_S: Final = 60.0
"""How long it is known that work is done."""

MINE: Final = "mine"
TAKEN: Final = "taken"
DONE: Final = "done"


class Claims:
    """Claims work by compare-and-set in Redis."""

    def __init__(self, link: RedisLink, *, node: str, clock: Callable[[], float]) -> None:
        """
        Args:
            link: to Redis.
            node: name of this process.
            clock: fleet time, seconds.
        """
        self._link = link
        self._node = node
        self._clock = clock
        self._key = link.key("claims")

    async def take(self, work: Mapping[str, float], *, lease_s: float) -> dict[str, str]:
        """Claim work.

        Args:
            work: the names of its pieces, each with the moment of fleet time since which there is
                this work.
            lease_s: how long a claim holds if the node does not finish.

        Returns:
            For each name `mine`, `taken` (by another node, which may yet fail) or `done`.

        Raises:
            RedisUnavailable: Redis is down, or went down.
        """
        pairs = [part for name, at in work.items() for part in (name, at)]
        arguments: list[Argument] = [self._node, self._clock(), lease_s, TOLERANCE_S, *pairs]
        answers: list[str] = await self._link.script("claim", [self._key], arguments)
        return dict(zip(work, answers, strict=True))

    async def done(self, names: Sequence[str]) -> None:
        """This node has done work that it had claimed.

        Raises:
            RedisUnavailable: another node may do the work again.
        """
        arguments: list[Argument] = [self._node, self._clock(), _KEPT_S, *names]
        await self._link.script("claim_done", [self._key], arguments)
