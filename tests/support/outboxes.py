"""What tests of the outbox share: clocks set by the test, entries, and a look into the file."""

import json
import sqlite3
from pathlib import Path
from typing import Any

from tidegate.clock import Clock
from tidegate.elapsed import Uptime
from tidegate.outbox import Entry, Outbox, Run
from tidegate.wire.frames import Message


class SetClocks(Clock):
    """A wall clock and a time since boot, set by the test."""

    def __init__(self, wall_s: float = 1_800_000_000.0, boot: str = "one") -> None:
        self.wall_s = wall_s
        self.up_s = 100.0
        self.boot = boot

    def wall(self) -> float:
        return self.wall_s

    def uptime(self) -> Uptime:
        return Uptime(self.boot, int(self.up_s * 1000))

    def pass_s(self, seconds: float) -> None:
        self.wall_s += seconds
        self.up_s += seconds

    def reboot(self, off_s: float, wall_s: float | None = None) -> None:
        self.wall_s = self.wall_s + off_s if wall_s is None else wall_s
        self.boot, self.up_s = self.boot + "+", 5.0


def entry(n: int = 1, size: int = 1) -> Entry:
    """A message whose data is `n`, `size` times."""
    return Entry("t", b"%d" % n * size, None)


def sized(size: int = 2) -> Entry:
    """A message with so many bytes of data."""
    return Entry("t", b"x" * size, None)


def seqs(messages: list[Message]) -> list[int]:
    return [message.seq for message in messages]


def take(
    outbox: Outbox, run: Run, after: int | None = None, messages_max: int = 1_000
) -> list[Message]:
    """Read messages of a run, from its oldest on or after a seq."""
    after = run.oldest - 1 if after is None else after
    return outbox.read(run.id, after, messages_max=messages_max, bytes_max=10**9)


def rows(database: sqlite3.Connection) -> list[Any]:
    """Everything in the file: (number, id, seq, data)."""
    return database.execute(
        "SELECT number, id, number - first + 1, data FROM messages JOIN ids ON first ="
        " (SELECT max(first) FROM ids WHERE first <= number) ORDER BY number"
    ).fetchall()


def rows_of(outbox: Outbox) -> list[Any]:
    """Everything in the file of an open outbox."""
    return rows(outbox._file.database)


def refuse_writing(outbox: Outbox, refused: bool = True) -> None:
    """The disk is full, as far as SQLite can tell: no page may be added."""
    pages = outbox._file.database.execute("PRAGMA page_count").fetchone()[0] if refused else 2**30
    outbox._file.database.execute(f"PRAGMA max_page_count={pages}").fetchone()


def refuse_deleting(outbox: Outbox, refused: bool = True) -> None:
    """The disk refuses every deletion."""
    outbox._file.database.set_authorizer(
        (lambda action, *_: sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_DELETE else 0)
        if refused
        else None
    )


def refuse_commits(outbox: Outbox, refused: bool = True) -> None:
    """The disk refuses every commit."""
    outbox._file.database.set_authorizer(
        (lambda action, word, *_: action == sqlite3.SQLITE_TRANSACTION and word == "COMMIT")
        if refused
        else None
    )


def fill(directory: Path, *batches: list[Any]) -> list[str]:
    """Write an outbox file with one id for each batch of data. Returns the ids."""
    ids = []
    for batch in batches:
        box = Outbox(directory / "box")
        box.append([Entry("t", json.dumps(data).encode(), None) for data in batch])
        ids.append(box._ledger.book.id)
        box.close()
    return ids


def is_free(path: Path) -> bool:
    """Open the outbox file and close it: raises OutboxError if it is open elsewhere."""
    Outbox(path).close()
    return True
