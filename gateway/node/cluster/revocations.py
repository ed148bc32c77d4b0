"""What is revoked on this node: the list that the gate reads, its file, and the sessions it ends.

A fact is enforced at once, and written to the data directory. `ops/revocations.py` gives it to
the other nodes too.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Protocol

import structlog

from gateway import durable_file
from gateway.admission.credential import Identity
from gateway.admission.revocation import Revocation, RevocationList
from gateway.cluster.revocations import parse_fact, render_fact
from gateway.process import Work
from gateway.session.errors import Revoked, SessionError

_log = structlog.get_logger(__name__)

_GATHER_S: Final = 0.2
_RETRY_S: Final = 5.0


def earlier_of(wall: Callable[[], float], fleet: Callable[[], float]) -> Callable[[], float]:
    """The clock by which revocations end: whichever is behind, so that none ends too early."""

    def clock() -> float:
        return min(wall(), fleet())

    return clock


REVOCATIONS_FILE: Final = "revocations.jsonl"


def read_facts(file: Path) -> list[Revocation]:
    """The facts of a file; none if there is no file. A line that cannot be read is logged.

    Raises:
        OSError: the file is there and cannot be read.
    """
    try:
        text = file.read_text()
    except FileNotFoundError:
        return []
    return parse_facts(text, str(file))


def parse_facts(text: str, source: str) -> list[Revocation]:
    """The facts of a text, one a line. A line that cannot be read is logged with its source."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        fact = parse_fact(line)
        if fact is None:
            _log.error("revocation_unreadable", file=source, line=number)
        else:
            found.append(fact)
    return found


def render_facts(facts: Iterable[Revocation]) -> str:
    """The text of these facts."""
    return "".join(render_fact(fact) + "\n" for fact in facts)


class Member(Protocol):
    """A session of this node."""

    @property
    def identity(self) -> Identity:
        """Whose it is."""

    def end(self, offence: SessionError) -> None:
        """Close it, for that reason."""


class Revocations:
    """What is revoked on this node."""

    def __init__(
        self,
        facts: RevocationList,
        *,
        file: Path,
        sessions: Iterable[Member],
        write: Callable[[str, str], Awaitable[None]] | None = None,
    ) -> None:
        """
        Args:
            facts: the list that the gate reads.
            file: where this node keeps it.
            sessions: the live sessions of this node.
            write: writes a file of that directory, its name and its text, and raises OSError if the
                disk refuses; None if this process writes there itself.
        """
        self.facts = facts
        self._file = file
        self._sessions = sessions
        self._write = write if write is not None else self._replace
        self._changed = asyncio.Event()
        self._writing = asyncio.Lock()

    def state(self, revocation: Revocation) -> Revocation:
        """Enforce a revocation, or lift one, on this node. Keep it with `keep`.

        Returns:
            The fact, with its time.
        """
        fact = self.facts.state(revocation)
        self._enforce([fact])
        return fact

    def in_force(self) -> list[Revocation]:
        """Everything that is revoked now, as far as this node knows; the newest first."""
        return sorted(self.facts.in_force(), key=lambda fact: -fact.at)

    def learn(self, facts: Sequence[Revocation]) -> None:
        """Add facts that other nodes stated, and enforce them."""
        news = [fact for fact in facts if self.facts.add(fact)]
        if news:
            self._enforce(news)
            self._changed.set()

    def _enforce(self, news: Sequence[Revocation]) -> None:
        """End the sessions that are revoked; one pass, however many facts there are."""
        if all(fact.lifted for fact in news):
            return
        for session in self._sessions:
            if self.facts.revoked(session.identity):
                session.end(Revoked())

    # The file

    def load(self) -> None:
        """Read the file: a restart must not admit a revoked device.

        Raises:
            OSError: the file is there and cannot be read.
        """
        for fact in read_facts(self._file):
            self.facts.add(fact)

    def work(self) -> Iterable[Work]:
        yield "revocations", self._run()

    async def _run(self) -> None:
        """Write what other nodes stated to the file. If the disk refuses, try again."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(_GATHER_S)
            if not await self.keep():
                await asyncio.sleep(_RETRY_S)

    async def stop(self) -> None:
        """Write what was stated last to the file."""
        if self._changed.is_set():
            await self.keep()

    async def keep(self) -> bool:
        """Write all facts to the file; whether the disk took them. If not, it is tried again."""
        async with self._writing:
            self._changed.clear()
            text = render_facts(self.facts.facts())
            try:
                await self._write(self._file.name, text)
            except OSError as exc:
                self._changed.set()
                _log.error("revocations_not_kept", file=str(self._file), error=exc.strerror)
                return False
            return True

    async def _replace(self, name: str, text: str) -> None:
        await asyncio.to_thread(durable_file.replace, self._file.with_name(name), text)
