"""Which server of a cluster to connect to: the one that leads EVENTS.

Every server of a cluster takes messages. One that does not lead the stream hands each of them on to
the one that does, which parses it once more (`loadtest/README.md` has what that costs).
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, NamedTuple

import nats.errors

from gateway.stream.errors import StreamError
from gateway.stream.link.client import LinkClient
from gateway.stream.link.dialing import NatsAddress, dial
from gateway.stream.names import EVENTS

_TIMEOUT_S: Final = 2.0


class Seen(NamedTuple):
    """What a server says."""

    name: str
    """Its own."""
    leader: str
    """The name of the server that leads EVENTS; empty if it knows none."""


Look = Callable[[str], Awaitable[Seen]]
"""Asks the server of a URL. Raises `StreamError` if it is away."""


class LeaderFirst:
    """Orders the servers of a cluster, the one that leads EVENTS first."""

    def __init__(self, look: Look) -> None:
        """
        Args:
            look: asks a server.
        """
        self._look = look
        self._names: dict[str, str] = {}
        """The name of each server that was asked, by URL."""

    @classmethod
    def of(cls, address: NatsAddress, name: str) -> "LeaderFirst":
        """Signs in as `address` says, under the name of the connection that is to be made."""
        return cls(partial(_look, address=address, name=name))

    async def order(self, urls: list[str]) -> list[str]:
        """`urls` with that of the leader first, unchanged if nobody knows a leader among them.

        One server is asked who leads; others are asked for their names until that of the leader is
        known, once in the life of this object.
        """
        leader = ""
        for url in urls if len(urls) > 1 else ():
            try:
                seen = await self._look(url)
            except StreamError:
                continue  # whoever connects to it hears why
            self._names[url] = seen.name
            leader = leader or seen.leader
            if not leader:
                break
            first = next((each for each in urls if self._names.get(each) == leader), None)
            if first is not None:
                return [first, *(each for each in urls if each != first)]
        return urls


async def _look(url: str, *, address: NatsAddress, name: str) -> Seen:
    client = await dial(url, address, name=name)
    try:
        return Seen(client.server_name, await _leader(client))
    finally:
        await client.discard()


async def _leader(client: LinkClient) -> str:
    try:
        info = await client.jetstream(timeout=_TIMEOUT_S).stream_info(EVENTS)
    except (nats.errors.Error, TimeoutError):
        return ""  # no stream yet, no leader, or no right to ask
    return (info.cluster.leader if info.cluster is not None else None) or ""
