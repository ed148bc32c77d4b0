"""Revocations of the whole fleet: facts that every node keeps, exchanged over Redis.

Nodes exchange facts over Redis, and each node keeps them. A node that connects to Redis gives it
all the facts that it knows and takes over the others. So no fact is lost when Redis loses its
memory.
"""

import json
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from gateway.admission.revocation import KEPT_S, Revocation
from gateway.cluster.link import RedisLink

_log = structlog.get_logger(__name__)

_NAMES: Final = ("jti", "tenant", "device")
_BATCH: Final = 500


class RevocationFeed:
    """Gives facts to all nodes, and takes over the facts of other nodes."""

    def __init__(
        self,
        link: RedisLink,
        *,
        known: Callable[[], Sequence[Revocation]],
        on_facts: Callable[[Sequence[Revocation]], None],
        clock: Callable[[], float],
    ) -> None:
        """
        Args:
            link: to Redis.
            known: all the facts of this node.
            on_facts: called with facts of other nodes, known ones included.
            clock: fleet time, Unix time in seconds.
        """
        self._link = link
        self._known = known
        self._on_facts = on_facts
        self._clock = clock
        self._key = link.key("revoked")

    @property
    def key(self) -> str:
        """The key of the facts."""
        return self._key

    @property
    def channel(self) -> str:
        """The channel of new facts."""
        return self._link.key("revocations")

    async def share(self, facts: Sequence[Revocation]) -> None:
        """Give `facts` to all nodes; Redis keeps the newest about each subject.

        Raises:
            RedisUnavailable: for now, only this node knows some of them.
        """
        for start in range(0, len(facts), _BATCH):
            batch = facts[start : start + _BATCH]
            pairs = [part for fact in batch for part in (_name(fact), render_fact(fact))]
            await self._link.script("revoke", [self._key], [self.channel, *pairs])

    async def exchange(self) -> None:
        """Give Redis all facts of this node, and take over all facts of Redis.

        Raises:
            RedisUnavailable: Redis is down, or went down.
        """
        await self.share(self._known())
        texts: dict[str, str] = await self._link.call(lambda client: client.hgetall(self._key))
        oldest = self._clock() - KEPT_S
        facts: list[Revocation] = []
        ended: list[str] = []
        for name, text in texts.items():
            fact = parse_fact(text)
            if fact is None:
                continue  # no fact, so it is not ours to delete
            if fact.until > oldest:
                facts.append(fact)
            else:
                ended.append(name)
        self._on_facts(facts)
        if ended:
            await self._link.call(lambda client: client.hdel(self._key, *ended))

    def on_message(self, text: str) -> None:
        """A new fact of another node."""
        fact = parse_fact(text)
        if fact is None:
            _log.error("cluster_message_malformed", channel=self.channel)
        else:
            self._on_facts([fact])


def _name(fact: Revocation) -> str:
    """The field of a fact in Redis. A jti may be any text; no tenant has a colon in it."""
    return f"jti:{fact.jti}" if fact.jti else f"{fact.tenant}/{fact.device}"


def render_fact(fact: Revocation) -> str:
    """One line of JSON."""
    document = {name: getattr(fact, name) for name in _NAMES if getattr(fact, name)}
    return json.dumps({**document, "until": fact.until, "at": fact.at, "lifted": fact.lifted})


def parse_fact(text: str) -> Revocation | None:
    """The fact, or None if it is none: other programs may write to our keys, or to our file."""
    try:
        document = json.loads(text)
        return Revocation(
            until=float(document["until"]),
            at=float(document.get("at", 0.0)),
            lifted=bool(document.get("lifted", False)),
            **{name: str(document.get(name, "")) for name in _NAMES},
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
