"""The durable outbox: what the application sent and the gateway has not yet acknowledged.

SQLite in WAL mode with `synchronous=FULL`: when `append` returns, the message survives the
process and the power. `seq` is given inside the same transaction, so no crash can give one twice.
A new file gets a new random outbox id: message ids of a lost file are never reused.
"""

import secrets
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from msgspec import UNSET, Raw

from clients.errors import OutboxError
from gateway.session.frames import Message

_SCHEMA_VERSION: Final = 1
_BUSY_TIMEOUT_S: Final = 2.0


class Entry(NamedTuple):
    """A message as the application gave it. `time` is RFC 3339 or None."""

    type: str
    data: bytes
    time: str | None


class Outbox:
    """One outbox file, owned by one process. Blocking; call it from one thread at a time."""

    def __init__(self, path: Path | str) -> None:
        """
        Raises:
            OutboxError: the file cannot be opened, is no outbox, or is in use.
        """
        self._path = path
        try:
            self._database = sqlite3.connect(
                path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            # Exclusive: a second process would give the same seq to other messages.
            self._database.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._open()
        except sqlite3.Error as exc:
            raise OutboxError(f"outbox {path}: {exc}") from exc

    def _open(self) -> None:
        database = self._database
        database.execute("BEGIN IMMEDIATE")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version == 0:
            database.execute("CREATE TABLE outbox (id TEXT NOT NULL, next_seq INTEGER NOT NULL)")
            database.execute(
                "CREATE TABLE messages (seq INTEGER PRIMARY KEY, type TEXT NOT NULL,"
                " data BLOB NOT NULL, time TEXT, added_ms INTEGER NOT NULL)"
            )
            database.execute("INSERT INTO outbox VALUES (?, 1)", (secrets.token_hex(8),))
            database.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")
        elif version != _SCHEMA_VERSION:
            raise OutboxError(f"outbox {self._path}: version {version}, not {_SCHEMA_VERSION}")
        database.execute("COMMIT")
        self.id: str
        self.next_seq: int
        self.id, self.next_seq = database.execute("SELECT id, next_seq FROM outbox").fetchone()

    def append(self, entries: Sequence[Entry]) -> list[int]:
        """Store `entries` durably, all or none.

        Returns:
            Their seqs.

        Raises:
            OutboxError: the disk refused; nothing is stored.
        """
        first = self.next_seq
        now_ms = int(time.time() * 1000)
        rows = [(first + place, *entry, now_ms) for place, entry in enumerate(entries)]
        try:
            self._database.execute("BEGIN")
            self._database.executemany("INSERT INTO messages VALUES (?, ?, ?, ?, ?)", rows)
            self._database.execute("UPDATE outbox SET next_seq = ?", (first + len(rows),))
            self._database.execute("COMMIT")
        except sqlite3.Error as exc:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise OutboxError(f"outbox {self._path}: {exc}") from exc
        self.next_seq = first + len(rows)
        return [row[0] for row in rows]

    def read(self, after: int, *, messages_max: int, bytes_max: int) -> list[Message]:
        """Messages that follow seq `after`, in order; at least one if there is any."""
        rows = self._database.execute(
            "SELECT seq, type, data, time FROM messages WHERE seq > ? ORDER BY seq LIMIT ?",
            (after, messages_max),
        )
        batch: list[Message] = []
        size = 0
        for seq, message_type, data, moment in rows:
            size += len(data) + len(message_type) + 80
            if batch and size > bytes_max:
                break
            stamp = moment if moment is not None else UNSET
            batch.append(Message(seq, message_type, Raw(data), stamp))
        return batch

    def settle(self, seq: int) -> None:
        """Forget everything up to and including `seq`: it is in the stream."""
        self._database.execute("DELETE FROM messages WHERE seq <= ?", (seq,))

    def oldest(self) -> tuple[int, int]:
        """The oldest unacknowledged seq (the next to be given if there is none) and its age, ms."""
        row = self._database.execute(
            "SELECT seq, added_ms FROM messages ORDER BY seq LIMIT 1"
        ).fetchone()
        if row is None:
            return self.next_seq, 0
        return row[0], max(0, int(time.time() * 1000) - row[1])

    def __len__(self) -> int:
        (count,) = self._database.execute("SELECT count(*) FROM messages").fetchone()
        return int(count)

    def close(self) -> None:
        self._database.close()
