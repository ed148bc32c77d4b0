"""The hold: while the stream stores nothing, devices stay connected and send nothing.

Disconnecting devices because the stream is slow would cause the next storm. So their credit goes to
zero, pings go on, and each keeps its outbox. When the stream is back, devices get credit again one
after the other, from a small window on: the backlog of a whole fleet at once would be a second
storm.
"""

import asyncio
import random
from collections.abc import Iterable
from typing import Final, Protocol

import structlog

_log = structlog.get_logger(__name__)

_STEP_S: Final = 0.05


class Holdable(Protocol):
    def hold(self, reason: str) -> None:
        """Credit is zero until `release`."""

    def release(self) -> None:
        """Credit comes back."""


class StreamHold:
    """Holds and releases the sessions of a node."""

    def __init__(
        self,
        sessions: Iterable[Holdable],
        *,
        release_per_s: float,
        rng: random.Random,
    ) -> None:
        """
        Args:
            sessions: those of the node; read at each hold and release.
            release_per_s: sessions given credit again a second.
            rng: source of the order in which they are released.
        """
        self._sessions = sessions
        self._release_per_s = release_per_s
        self._rng = rng
        self._releasing: asyncio.Task[None] | None = None
        self.reason = ""
        """Why, as devices are told; empty while no session is held."""

    def engage(self, reason: str) -> None:
        """Hold every session."""
        if self._releasing is not None:
            self._releasing.cancel()
            self._releasing = None
        if not self.reason:
            self.reason = reason
            sessions = list(self._sessions)
            _log.warning("held", reason=reason, devices=len(sessions))
            for session in sessions:
                session.hold(reason)

    def disengage(self) -> None:
        """Give credit back, spread over time.

        Raises:
            Exception: the error that cut the last release short. It must be seen, because the
                sessions that it left out would have no credit for ever.
        """
        if self._releasing is not None and self._releasing.done():
            releasing, self._releasing = self._releasing, None
            releasing.result()
        if self.reason and self._releasing is None:
            self._releasing = asyncio.create_task(self._release(), name="release")

    async def close(self) -> None:
        if self._releasing is not None:
            self._releasing.cancel()
            await asyncio.gather(self._releasing, return_exceptions=True)

    async def _release(self) -> None:
        self.reason = ""  # a session that begins from here on is not held
        sessions = list(self._sessions)
        self._rng.shuffle(sessions)
        _log.info("released", devices=len(sessions))
        step = max(1, round(self._release_per_s * _STEP_S))
        for start in range(0, len(sessions), step):
            for session in sessions[start : start + step]:
                session.release()
            await asyncio.sleep(_STEP_S)
        self._releasing = None
