"""Composition of revocations: the list, its file, the sessions it ends, and the other nodes.

A fact is enforced at once on this node, written to the data directory, and given to the fleet. What
the fleet cannot hear now it hears as soon as Redis answers (see `cluster/revocations.py`).
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Protocol

import structlog

from gateway import durable_file
from gateway.admission.credential import Identity
from gateway.admission.revocation import Revocation, RevocationList, Subject
from gateway.cluster.revocations import parse_fact, render_fact
from gateway.session.errors import Revoked, SessionError

_log = structlog.get_logger(__name__)

FLEET: Final = "fleet"
"""Every node that is connected has been told, and Redis keeps it."""
PENDING: Final = "pending"
"""This node enforces and keeps it; the others hear of it once Redis answers."""
NODE: Final = "node"
"""This node enforces and keeps it, and there are no others."""
MEMORY: Final = "memory"
"""This node enforces it until it stops: neither its disk nor the fleet took it."""

_GATHER_S: Final = 0.2
_RETRY_S: Final = 5.0

Share = Callable[[Sequence[Revocation]], Awaitable[bool]]
"""Gives facts to the fleet; returns whether it took them."""


class Member(Protocol):
    """A session of this node."""

    @property
    def identity(self) -> Identity:
        """Whose it is."""

    def end(self, offence: SessionError) -> None:
        """Close it, for that reason."""


class Revocations:
    """What is revoked on this node and, through it, on the others."""

    def __init__(
        self,
        facts: RevocationList,
        *,
        file: Path,
        sessions: Callable[[], Iterable[Member]],
    ) -> None:
        """
        Args:
            facts: the list that the gate reads.
            file: where this node keeps it.
            sessions: the live sessions of this node.
        """
        self.facts = facts
        self._file = file
        self._sessions = sessions
        self._share: Share | None = None
        self._unshared: set[Subject] = set()
        self._changed = asyncio.Event()
        self._writing = asyncio.Lock()

    def share_with(self, share: Share) -> None:
        """There are other nodes."""
        self._share = share

    @property
    def pending(self) -> int:
        """Facts of this node that the fleet has not taken yet."""
        return len(self._unshared)

    async def revoke(self, revocation: Revocation) -> str:
        """Revoke, on all nodes.

        Returns:
            How far it went: `FLEET`, `PENDING`, `NODE` or `MEMORY`.
        """
        fact = self.facts.state(revocation)
        self._enforce([fact])
        return await self._spread(fact)

    async def lift(self, *, jti: str = "", tenant: str = "", device: str = "") -> str:
        """Let a subject in again, on all nodes.

        Returns:
            How far it went, as `revoke` says it.

        Raises:
            ValueError: it names neither a jti nor a tenant and device, or both.
        """
        fact = Revocation(0.0, jti=jti, tenant=tenant, device=device, lifted=True)
        return await self._spread(self.facts.state(fact))

    def in_force(self) -> list[Revocation]:
        """Everything that is revoked now, as far as this node knows; the newest first."""
        return sorted(self.facts.in_force(), key=lambda fact: -fact.at)

    async def _spread(self, fact: Revocation) -> str:
        kept = await self._keep()
        if self._share is None:
            return NODE if kept else MEMORY
        self._unshared.add(fact.key)
        if await self._share([fact]):
            self._unshared.discard(fact.key)
            return FLEET
        return PENDING if kept else MEMORY

    def learn(self, facts: Sequence[Revocation]) -> None:
        """Other nodes stated these."""
        news = [fact for fact in facts if self.facts.add(fact)]
        if news:
            self._enforce(news)
            self._changed.set()

    def all_shared(self) -> None:
        """The fleet has taken everything this node knew."""
        self._unshared.clear()

    def _enforce(self, news: Sequence[Revocation]) -> None:
        """End the sessions that are revoked; one pass, however many facts there are."""
        if all(fact.lifted for fact in news):
            return
        for session in self._sessions():
            if self.facts.revoked(session.identity):
                session.end(Revoked())

    # The file

    def load(self) -> None:
        """Read what this node kept: a restart must not let them in again.

        Raises:
            OSError: the file is there and cannot be read.
        """
        with contextlib.suppress(FileNotFoundError):
            for number, line in enumerate(self._file.read_text().splitlines(), 1):
                fact = parse_fact(line)
                if fact is None:
                    _log.error("revocation_unreadable", file=str(self._file), line=number)
                else:
                    self.facts.add(fact)

    async def run(self) -> None:
        """Keep what is learnt from others, for ever; a disk that refuses is tried again."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(_GATHER_S)
            if not await self._keep():
                await asyncio.sleep(_RETRY_S)

    async def close(self) -> None:
        """Keep what was learnt last."""
        if self._changed.is_set():
            await self._keep()

    async def _keep(self) -> bool:
        async with self._writing:
            self._changed.clear()
            text = "".join(render_fact(fact) + "\n" for fact in self.facts.facts())
            try:
                await asyncio.to_thread(durable_file.replace, self._file, text)
            except OSError as exc:
                self._changed.set()
                _log.error("revocations_not_kept", file=str(self._file), error=exc.strerror)
                return False
            return True
