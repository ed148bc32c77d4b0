"""The files of the data directory that workers change: the supervisor alone writes them.

Each worker knows what its fleet knows, a moment sooner or later. So a file of revocations is never
replaced by what one worker knows: the facts of all are merged, and of two facts about one subject
the newer one stays.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from gateway import durable_file
from gateway.admission.revocation import RevocationList
from gateway.node.cluster.revocations import REVOCATIONS_FILE, parse_facts, read_facts, render_facts
from gateway.node.cluster.ticket_secrets import FLEET_SECRETS, KeptSecrets


class WorkerFiles:
    """Writes what workers ask for."""

    def __init__(self, data_dir: Path, *, wall: Callable[[], float]) -> None:
        """
        Args:
            data_dir: of the gateway; its lock must be held before anything is read or written.
            wall: Unix time in seconds; revocations that ended long ago are forgotten by it.
        """
        self._data_dir = data_dir
        self._facts = RevocationList(wall)
        self._writing = asyncio.Lock()

    def load(self, ticket_secrets: list[bytes]) -> None:
        """Read what is there, and make the ticket secret if there is none.

        Args:
            ticket_secrets: those of the settings.

        Raises:
            OSError: a file can be neither read nor made.
        """
        KeptSecrets(self._data_dir).load(ticket_secrets)
        for fact in read_facts(self._data_dir / REVOCATIONS_FILE):
            self._facts.add(fact)

    async def write(self, name: str, text: str) -> str:
        """Write a file.

        Args:
            name: of the file.
            text: of the file, as one worker knows it.

        Returns:
            Why it could not be written; empty if it was.
        """
        async with self._writing:
            if name == REVOCATIONS_FILE:
                for fact in parse_facts(text, "worker"):
                    self._facts.add(fact)
                text = render_facts(self._facts.facts())
            elif name != FLEET_SECRETS:
                return f"{name} is no file of a worker"
            try:
                await asyncio.to_thread(durable_file.replace, self._data_dir / name, text)
            except OSError as exc:
                return exc.strerror or str(exc)
        return ""
