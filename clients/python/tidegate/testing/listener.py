"""Where devices knock in memory, and where a conversation is played on each connection."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import NamedTuple, Self

from tidegate.answers import read_answer
from tidegate.connection import Closed, Connection, Refused, Silent
from tidegate.testing.line import Line
from tidegate.testing.peer import Peer
from tidegate.testing.refusals import Answer

Play = Callable[[Peer], Awaitable[None]]
"""A conversation with one device; it may end with `Closed`."""


class Knock(NamedTuple):
    """An attempt of a device to connect."""

    url: str
    credential: str
    ticket: str | None


Reply = Callable[[Knock], Answer | Play | None]
"""What a knock meets: a refusal, a conversation, or nobody."""


class Listener:
    """Takes knocks until the end of its context, which raises what a conversation raised."""

    def __init__(self, reply: Reply, stir: Callable[[], None] = lambda: None) -> None:
        """
        Args:
            reply: says what each knock meets.
            stir: called whenever something happens.
        """
        self.knocks: list[Knock] = []
        self.peers: list[Peer] = []
        """One for each connection, the oldest first."""
        self._reply = reply
        self._stir = stir
        self._plays: set[asyncio.Task[None]] = set()
        self._failed: list[BaseException] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for peer in self.peers:
            peer.cut()
        plays = list(self._plays)
        for play in plays:
            play.cancel()
        await asyncio.gather(*plays, return_exceptions=True)
        if error is None and self._failed:
            raise self._failed[0]

    async def connect(self, url: str, token: str, ticket: str | None) -> Connection:
        """A knock: `tidegate.connection.Connect`.

        Raises:
            Refused: the reply is a refusal.
            Silent: nobody replies.
        """
        knock = Knock(url, token, ticket)
        self.knocks.append(knock)
        self._stir()
        reply = self._reply(knock)
        if reply is None:
            raise Silent(f"{url}: Connection refused")
        if isinstance(reply, Answer):
            raise Refused(read_answer(reply.status, reply.headers, reply.body, token))
        line = Line(self._stir)
        peer = Peer(line.gateway)
        self.peers.append(peer)
        play = asyncio.create_task(self._played(reply, peer), name="tidegate-testing-play")
        self._plays.add(play)
        play.add_done_callback(self._plays.discard)
        return line.device

    async def _played(self, play: Play, peer: Peer) -> None:
        try:
            await play(peer)
        except Closed:
            pass
        except Exception as exc:  # noqa: BLE001  # a fault of the script; `__aexit__` raises it
            self._failed.append(exc)
            peer.cut()
