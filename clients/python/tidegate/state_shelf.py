"""The state that the device has, in the outbox file. Blocking; one thread at a time."""

import logging
import sqlite3
from typing import Final

from tidegate.outbox_file import OutboxFile
from tidegate.states import StateRecord, objection

_log = logging.getLogger("tidegate.outbox")

# An older client ignores the table, so the file keeps its version.
_TABLE: Final = "CREATE TABLE IF NOT EXISTS desired (version TEXT NOT NULL, desired BLOB NOT NULL)"


class StateShelf:
    """Keeps the newest state. One that is damaged counts as none: the gateway sends it again."""

    def __init__(self, file: OutboxFile) -> None:
        self._file = file
        self.kept = self._load()
        """The state that was kept when the file was opened."""

    def _load(self) -> StateRecord | None:
        try:
            row = self._file.database.execute("SELECT version, desired FROM desired").fetchone()
        except sqlite3.Error as exc:
            if "no such table" not in str(exc):
                _log.warning("the state in %s cannot be read: %s", self._file.path, exc)
            return None
        if row is None:
            return None
        version, desired = row
        if not (isinstance(version, str) and isinstance(desired, bytes)):
            return None
        record = StateRecord(version, desired)
        problem = objection(record)
        if problem is not None:
            _log.warning("the state in %s is damaged: %s", self._file.path, problem)
            return None
        return record

    def save(self, record: StateRecord) -> None:
        """Replace the state that is kept.

        Raises:
            OutboxError: the disk refused; the earlier state is still there.
        """
        self._file.check()
        execute = self._file.database.execute
        with self._file.transaction():
            execute(_TABLE)
            execute("DELETE FROM desired")
            execute("INSERT INTO desired VALUES (?, ?)", record)
