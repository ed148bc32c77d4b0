"""The durable outbox: what the application sent and the gateway has not yet acknowledged.

SQLite in WAL mode with `synchronous=FULL`: when `append` returns, the message survives the
process and the power. `seq` is given inside the same transaction, so no crash can give one twice.
A new file gets a new random outbox id: message ids of a lost file are never reused.

Bounded in messages, bytes and age. At a bound the application chooses what gives way: the new
message (refused, the default) or the oldest ones (dropped, and counted).
"""

import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

from msgspec import UNSET, Raw

from clients.errors import OutboxError, OutboxFull
from gateway.session.frames import Message

_SCHEMA_VERSION: Final = 1
_BUSY_TIMEOUT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class OutboxLimits:
    """What an outbox may hold; `age_max_s` None is any age.

    With `drop_oldest` a tenth more than needed is dropped at once: each drop of what was not yet
    sent costs the session a reconnect.
    """

    messages_max: int = 100_000
    bytes_max: int = 67_108_864
    age_max_s: float | None = None
    when_full: Literal["refuse", "drop_oldest"] = "refuse"


_DROP_SHARE: Final = 10


class Entry(NamedTuple):
    """A message as the application gave it. `time` is RFC 3339 or None."""

    type: str
    data: bytes
    time: str | None


class Outbox:
    """One outbox file, owned by one process. Blocking; call it from one thread at a time."""

    def __init__(
        self,
        path: Path | str,
        limits: OutboxLimits | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            path: of the file.
            limits: what it may hold.
            clock: Unix time in seconds.

        Raises:
            OutboxError: the file cannot be opened, is no outbox, or is in use.
        """
        self._path = path
        self._limits = limits or OutboxLimits()
        self._clock = clock
        self.dropped = 0
        """Messages given up at a bound, since it was opened."""
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
        self.messages: int
        self.bytes: int
        self.id, self.next_seq = database.execute("SELECT id, next_seq FROM outbox").fetchone()
        self.messages, self.bytes = database.execute(
            "SELECT count(*), coalesce(sum(length(data)), 0) FROM messages"
        ).fetchone()

    def append(self, entries: Sequence[Entry]) -> list[int]:
        """Store `entries` durably, all or none.

        Returns:
            Their seqs.

        Raises:
            OutboxFull: it is at its bound, and the policy is to refuse.
            OutboxError: the disk refused; nothing is stored.
        """
        size = sum(len(entry.data) for entry in entries)
        self._make_room(len(entries), size)
        first = self.next_seq
        now_ms = int(self._clock() * 1000)
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
        self.messages += len(rows)
        self.bytes += size
        return [row[0] for row in rows]

    def _make_room(self, messages: int, size: int) -> None:
        limits = self._limits
        over_messages = self.messages + messages - limits.messages_max
        over_bytes = self.bytes + size - limits.bytes_max
        _oldest, age_ms = self.oldest()
        too_old = limits.age_max_s is not None and age_ms > limits.age_max_s * 1000
        if over_messages <= 0 and over_bytes <= 0 and not too_old:
            return
        if limits.when_full == "refuse":
            bound = (
                f"{limits.messages_max} messages"
                if over_messages > 0
                else f"{limits.bytes_max} bytes"
                if over_bytes > 0
                else f"{limits.age_max_s} s"
            )
            raise OutboxFull(f"outbox {self._path} is at its bound of {bound}")
        self._drop(over_messages, over_bytes)

    def _drop(self, over_messages: int, over_bytes: int) -> None:
        """Give up the oldest: at least so many, or so many bytes, and all that are too old."""
        limits = self._limits
        if over_messages > 0:
            over_messages += limits.messages_max // _DROP_SHARE
        if over_bytes > 0:
            over_bytes += limits.bytes_max // _DROP_SHARE
        born_ms = (
            int((self._clock() - limits.age_max_s) * 1000) if limits.age_max_s is not None else 0
        )
        last = 0
        for seq, size, added_ms in self._database.execute(
            "SELECT seq, length(data), added_ms FROM messages ORDER BY seq"
        ):
            if over_messages <= 0 and over_bytes <= 0 and added_ms >= born_ms:
                break
            last = seq
            over_messages -= 1
            over_bytes -= size
        self.dropped += self.settle(last)

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

    def settle(self, seq: int) -> int:
        """Forget everything up to and including `seq`: it is in the stream.

        Returns:
            How many messages that were.
        """
        gone, size = self._database.execute(
            "SELECT count(*), coalesce(sum(length(data)), 0) FROM messages WHERE seq <= ?", (seq,)
        ).fetchone()
        self._database.execute("DELETE FROM messages WHERE seq <= ?", (seq,))
        self.messages -= gone
        self.bytes -= size
        return int(gone)

    def oldest(self) -> tuple[int, int]:
        """The oldest unacknowledged seq (the next to be given if there is none) and its age, ms."""
        row = self._database.execute(
            "SELECT seq, added_ms FROM messages ORDER BY seq LIMIT 1"
        ).fetchone()
        if row is None:
            return self.next_seq, 0
        return row[0], max(0, int(self._clock() * 1000) - row[1])

    def __len__(self) -> int:
        return self.messages

    def close(self) -> None:
        self._database.close()
