"""The rows of an outbox file: ids, messages and state. Only SQL, no decisions.

Numbers from `first` up to the next row's `first` belong to one id: seq = number - first + 1.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tidegate.elapsed import Stamp


class State(NamedTuple):
    """The content of the file when it is opened."""

    next_number: int
    features: bool
    stamp: Stamp
    messages: int
    bytes: int


Row = tuple[int, str, bytes, str | None]
"""Number, type, data, time."""


class Rows:
    """Reads and writes rows. Every method may raise sqlite3.Error."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._execute = database.execute
        self._executemany = database.executemany

    def state(self) -> State:
        next_number, features, *stamp = self._execute("SELECT * FROM state").fetchone()
        messages, size = self._execute(
            "SELECT count(*), coalesce(sum(length(data)), 0) FROM messages"
        ).fetchone()
        return State(next_number, bool(features), Stamp(*stamp), messages, size)

    def save_features(self, known: bool) -> None:
        self._execute("UPDATE state SET features = ?", (known,))

    def save_state(self, next_number: int, stamp: Stamp) -> None:
        self._execute(
            "UPDATE state SET next_number = ?, outbox_ms = ?, boot = ?, uptime_ms = ?, wall_ms = ?",
            (next_number, *stamp),
        )

    def save_stamp(self, stamp: Stamp) -> None:
        self._execute("UPDATE state SET outbox_ms = ?, boot = ?, uptime_ms = ?, wall_ms = ?", stamp)

    # Ids

    def first_of(self, identity: str) -> int | None:
        """The number of seq 1 of an id."""
        row = self._execute("SELECT first FROM ids WHERE id = ?", (identity,)).fetchone()
        return None if row is None else int(row[0])

    def owner(self, number: int) -> tuple[int, str] | None:
        """The id to which a number belongs: its first number and its name."""
        row = self._execute(
            "SELECT first, id FROM ids WHERE first <= ? ORDER BY first DESC LIMIT 1", (number,)
        ).fetchone()
        return None if row is None else (int(row[0]), str(row[1]))

    def next_first(self, first: int) -> int | None:
        """The first number of the next id."""
        (found,) = self._execute("SELECT min(first) FROM ids WHERE first > ?", (first,)).fetchone()
        return None if found is None else int(found)

    def add_id(self, first: int, identity: str) -> None:
        self._execute("INSERT INTO ids VALUES (?, ?)", (first, identity))

    def delete_ids_before(self, first: int) -> None:
        self._execute("DELETE FROM ids WHERE first < ?", (first,))

    # Messages

    def next_in(self, number: int, end: int) -> int | None:
        """The first message in [number, end)."""
        (found,) = self._execute(
            "SELECT min(number) FROM messages WHERE number >= ? AND number < ?", (number, end)
        ).fetchone()
        return None if found is None else int(found)

    def last_in(self, number: int, end: int) -> int | None:
        """The last message in [number, end)."""
        (found,) = self._execute(
            "SELECT max(number) FROM messages WHERE number >= ? AND number < ?", (number, end)
        ).fetchone()
        return None if found is None else int(found)

    def sizes_after(self, number: int) -> Iterator[tuple[int, int]]:
        """Number and bytes of data of each message after `number`, in order."""
        return self._execute(
            "SELECT number, length(data) FROM messages WHERE number > ? ORDER BY number", (number,)
        )

    def times_after(self, number: int) -> Iterator[tuple[int, int]]:
        """Number and the time it was added, ms, of each message after `number`, in order."""
        return self._execute(
            "SELECT number, added_ms FROM messages WHERE number > ? ORDER BY number", (number,)
        )

    def oldest_after(self, number: int) -> tuple[int, int] | None:
        """The first of `times_after`."""
        row: tuple[int, int] | None = self._execute(
            "SELECT number, added_ms FROM messages WHERE number > ? ORDER BY number LIMIT 1",
            (number,),
        ).fetchone()
        return row

    def read(self, after: int, end: int, count: int) -> Iterator[Row]:
        """At most `count` messages after `after` and before `end`, in order."""
        return self._execute(
            "SELECT number, type, data, time FROM messages WHERE number > ? AND number < ?"
            " ORDER BY number LIMIT ?",
            (after, end, count),
        )

    def add(self, rows: Iterable[Row], added_ms: int) -> None:
        self._executemany(
            "INSERT INTO messages VALUES (?, ?, ?, ?, ?)", ((*row, added_ms) for row in rows)
        )

    def delete(self, after: int, last: int) -> tuple[int, int]:
        """Delete the messages in (after, last]. Returns their count and their bytes of data."""
        bounds = (after, last)
        messages, size = self._execute(
            "SELECT count(*), coalesce(sum(length(data)), 0) FROM messages"
            " WHERE number > ? AND number <= ?",
            bounds,
        ).fetchone()
        self._execute("DELETE FROM messages WHERE number > ? AND number <= ?", bounds)
        return messages, size
