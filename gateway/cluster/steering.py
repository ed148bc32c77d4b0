"""Overrides of the whole fleet, exchanged over Redis in the way of revocations.

A node that connects to Redis gives it all that it knows and takes over the rest, so a node which
starts later obeys too, and a Redis that forgot is told again.
"""

from collections.abc import Sequence

import structlog

from gateway.cluster.link import RedisLink
from gateway.cluster.overrides import Override, Overrides, parse_override, render_override

_log = structlog.get_logger(__name__)


class SteeringFeed:
    """Gives overrides to all nodes, and takes over those of other nodes."""

    def __init__(self, link: RedisLink, overrides: Overrides) -> None:
        """
        Args:
            link: to Redis.
            overrides: of this node.
        """
        self._link = link
        self._overrides = overrides
        self._key = link.key("steering")

    @property
    def channel(self) -> str:
        """The channel of new overrides."""
        return self._link.key("steerings")

    async def share(self, facts: Sequence[Override]) -> None:
        """Give overrides to all nodes; Redis keeps the newest of each setting.

        Raises:
            RedisUnavailable: for now, only this node knows them.
        """
        pairs = [part for fact in facts for part in (fact.name, render_override(fact))]
        if pairs:
            await self._link.script("revoke", [self._key], [self.channel, *pairs])

    async def exchange(self) -> None:
        """Give Redis what this node knows, and take over what Redis has.

        Raises:
            RedisUnavailable: Redis is down, or went down.
        """
        await self.share(self._overrides.facts())
        texts: dict[str, str] = await self._link.call(lambda client: client.hgetall(self._key))
        found = [parse_override(text) for text in texts.values()]
        self._overrides.learn([fact for fact in found if fact is not None])

    def on_message(self, text: str) -> None:
        """A new override of another node."""
        fact = parse_override(text)
        if fact is None:
            _log.error("cluster_message_malformed", channel=self.channel)
        else:
            self._overrides.learn([fact])
