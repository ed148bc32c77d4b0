"""Revocations of the whole fleet: kept in Redis, pushed to every node."""

import json
import time
from collections.abc import Callable
from typing import Any, Final

import structlog

from gateway.admission.revocation import Revocation
from gateway.cluster.link import RedisLink

_log = structlog.get_logger(__name__)

_FIELDS: Final = ("until", "jti", "tenant", "device")


class RevocationFeed:
    """Adds revocations for all nodes, and hears those of others."""

    def __init__(self, link: RedisLink, *, on_revoked: Callable[[Revocation], None]) -> None:
        """
        Args:
            link: to Redis.
            on_revoked: called with each, those from before this node's time as well.
        """
        self._link = link
        self._on_revoked = on_revoked
        self._key = link.key("revoked")

    @property
    def channel(self) -> str:
        return self._link.key("revocations")

    async def add(self, revocation: Revocation) -> None:
        """Revoke, everywhere.

        Raises:
            RedisUnavailable: only this node can know of it for now.
        """
        text = render_revocation(revocation)

        async def store(client: Any) -> None:
            await client.hset(self._key, "/".join(revocation.key), text)
            await client.publish(self.channel, text)

        await self._link.call(store)

    def on_message(self, text: str) -> None:
        revocation = parse_revocation(text)
        if revocation is None:
            _log.error("cluster_message_malformed", channel=self.channel)
        else:
            self._on_revoked(revocation)

    async def load(self) -> None:
        """Hear all there are: those of before this node's time, and those it missed.

        Raises:
            RedisUnavailable: Redis is down, or went down.
        """
        texts: dict[str, str] = await self._link.call(lambda client: client.hgetall(self._key))
        now = time.time()
        expired: list[str] = []
        for name, text in texts.items():
            revocation = parse_revocation(text)
            if revocation is not None and revocation.until > now:
                self._on_revoked(revocation)
            else:
                expired.append(name)
        if expired:
            await self._link.call(lambda client: client.hdel(self._key, *expired))


def render_revocation(revocation: Revocation) -> str:
    return json.dumps({name: getattr(revocation, name) for name in _FIELDS})


def parse_revocation(text: str) -> Revocation | None:
    """None if it is no revocation: somebody else wrote to our keys."""
    try:
        document = json.loads(text)
        return Revocation(
            until=float(document["until"]),
            **{name: str(document.get(name, "")) for name in _FIELDS[1:]},
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
