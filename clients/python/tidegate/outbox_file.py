"""The SQLite file of an outbox: readable by its owner only, locked, migrated to the newest version.

In WAL mode with `synchronous=FULL` a commit survives the process and a power failure. The lock is
held as long as the file is open, so that no second process can send the same messages.
"""

import contextlib
import logging
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tidegate.elapsed import CREDIBLE_MS, Stamp
from tidegate.errors import OutboxError

_log = logging.getLogger("tidegate.outbox")

_SCHEMA_VERSION: Final = 2
_BUSY_TIMEOUT_S: Final = 2.0
_OWNER_ONLY: Final = 0o600
_FREE_PAGES_KEPT: Final = 256
"""So many free pages (of 4 KiB) stay in the file, for the next messages."""
_SHRINK_PAGES: Final = 1_024
"""How many pages one step gives back. A step of 4 MiB takes some milliseconds."""
_WAL_KEPT_BYTES: Final = 1_048_576
"""The log is cut to this size. The rest stays, as room that a full disk cannot take away."""

_WORDS: Final = {
    sqlite3.SQLITE_BUSY: "is open already, in this process or in another",
    sqlite3.SQLITE_FULL: "cannot grow: the disk is full",
    sqlite3.SQLITE_NOTADB: "is no outbox: the file is not an SQLite database",
    sqlite3.SQLITE_CORRUPT: "is damaged",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened",
    sqlite3.SQLITE_READONLY: "cannot be written",
}

# Numbers from `first` up to the next row's `first` belong to `id`: seq = number - first + 1.
_IDS: Final = "CREATE TABLE ids (first INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE)"
_MESSAGES: Final = (
    "CREATE TABLE messages (number INTEGER PRIMARY KEY, type TEXT NOT NULL, data BLOB NOT NULL,"
    " time TEXT, added_ms INTEGER NOT NULL)"
)
_STATE: Final = (
    "CREATE TABLE state (next_number INTEGER NOT NULL, features INTEGER NOT NULL,"
    " outbox_ms INTEGER NOT NULL, boot TEXT NOT NULL, uptime_ms INTEGER NOT NULL,"
    " wall_ms INTEGER NOT NULL)"
)


class OutboxFile:
    """An open and locked outbox file of the newest version. Blocking; one thread at a time."""

    def __init__(self, path: Path | str, now: Stamp) -> None:
        """
        Args:
            path: of the file, which is created if it is missing.
            now: the stamp of a new file, and of a file of version 1, whose times are wall clock.

        Raises:
            OutboxError: the file cannot be opened, is not an outbox, or is open already. Nothing
                stays open then.
        """
        # Absolute: the working directory may change, and ":memory:" is a name like any other.
        self.path = os.path.abspath(path)  # noqa: PTH100  # resolve() would follow the link
        self._synced = True
        self._shrunk = False
        _make_private(self.path)
        try:
            self.database = sqlite3.connect(
                self.path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as exc:
            raise self._error(exc) from exc
        with contextlib.ExitStack() as undo:
            undo.callback(self.database.close)
            with self.reading():
                self._open(now)
            undo.pop_all()

    def _open(self, now: Stamp) -> None:
        database = self.database
        database.execute("PRAGMA locking_mode=EXCLUSIVE")
        database.execute("PRAGMA auto_vacuum=INCREMENTAL")  # before the first page is written
        database.execute("PRAGMA journal_mode=WAL")
        database.execute(f"PRAGMA journal_size_limit={_WAL_KEPT_BYTES}")
        database.execute("PRAGMA synchronous=FULL")
        self._identity = self._look()
        version = 0
        with self.transaction():
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version == 0:
                _create(database, now)
            elif version == 1:
                _migrate(database, now)
            elif version != _SCHEMA_VERSION:
                raise OutboxError(f"outbox {self.path}: version {version}, not {_SCHEMA_VERSION}")
        if version == 1:
            self._enable_shrinking()

    def _enable_shrinking(self) -> None:
        """A file made by version 1 can shrink only after it was written anew."""
        try:
            self.database.execute("VACUUM")
        except sqlite3.OperationalError as exc:
            _log.warning("outbox %s keeps its size: %s", self.path, exc)

    def _look(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(_inode(self.path + suffix) for suffix in ("", "-wal"))

    def check(self) -> None:
        """Return if the file is still the one that was opened.

        Raises:
            OutboxError: the file was removed or replaced while it was open.
        """
        seen = self._look()
        if self._identity[1] is None:
            self._identity = (self._identity[0], seen[1])  # the first write creates the log
        if seen == self._identity:
            return
        how = "removed" if None in seen else "replaced by another file"
        raise OutboxError(f"outbox {self.path} was {how} while this process had it open")

    @contextlib.contextmanager
    def transaction(self, *, synced: bool = True) -> Iterator[None]:
        """A transaction. Without `synced` a power failure may undo it, but nothing before it.

        Raises:
            OutboxError: the disk refused; nothing has changed.
        """
        database = self.database
        try:
            if synced is not self._synced:
                database.execute(f"PRAGMA synchronous={'FULL' if synced else 'NORMAL'}")
                self._synced = synced
            database.execute("BEGIN IMMEDIATE")
            yield
            database.execute("COMMIT")
        except sqlite3.Error as exc:
            self._roll_back()
            raise self._error(exc) from exc
        except BaseException:  # whatever ended the block, nothing of it may be committed later
            self._roll_back()
            raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Turn errors of SQLite into those of the outbox.

        Raises:
            OutboxError: the disk refused.
        """
        try:
            yield
        except sqlite3.Error as exc:
            raise self._error(exc) from exc

    def _roll_back(self) -> None:
        # SQLite has rolled back by itself after some errors.
        with contextlib.suppress(sqlite3.Error):
            if self.database.in_transaction:
                self.database.execute("ROLLBACK")

    def shrink(self) -> bool:
        """Give a bounded part of the free room back to the disk, if most of the file is free.

        Returns:
            Whether there is more to give back.

        Raises:
            OutboxError: the disk refused.
        """
        with self.reading():
            (free,) = self.database.execute("PRAGMA freelist_count").fetchone()
            (pages,) = self.database.execute("PRAGMA page_count").fetchone()
            surplus = free - _FREE_PAGES_KEPT if free * 2 > pages else 0
            if surplus > 0:
                step = min(surplus, _SHRINK_PAGES)
                # `execute` stops after the first page.
                self.database.executescript(f"PRAGMA incremental_vacuum({step})")
                self._shrunk = True
            elif self._shrunk:
                # The file shrinks when the log is copied into it.
                self.database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                self._shrunk = False
        return surplus > 0

    def close(self) -> None:
        self.database.close()

    def _error(self, exc: sqlite3.Error) -> OutboxError:
        code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
        words = _WORDS.get(code)
        said = f"{words} ({exc})" if words is not None else f"failed: {exc}"
        return OutboxError(f"outbox {self.path} {said}")


def _make_private(path: str) -> None:
    """Create the file if it is missing, and let only its owner read it and its log.

    An existing file is not opened here: closing it would release the locks that an `Outbox` of this
    process holds on it (POSIX). SQLite gives the log the mode of the file.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, _OWNER_ONLY))
    except FileExistsError:
        pass
    except OSError as exc:
        raise OutboxError(f"outbox {path} cannot be made: {exc.strerror}") from exc
    for name in (path, f"{path}-wal", f"{path}-shm"):
        with contextlib.suppress(FileNotFoundError):
            file = Path(name)
            mode = file.stat().st_mode
            # A directory is refused later, by SQLite: here it must keep its mode.
            if stat.S_ISREG(mode) and mode & 0o077:
                try:
                    file.chmod(_OWNER_ONLY)
                except PermissionError as exc:
                    _log.warning("others may read the outbox: %s", exc)


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116  # one system call a commit, no object around it
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _create(database: sqlite3.Connection, now: Stamp) -> None:
    for table in (_IDS, _MESSAGES, _STATE):
        database.execute(table)
    database.execute("INSERT INTO state VALUES (1, 0, ?, ?, ?, ?)", now)
    database.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")


def _migrate(database: sqlite3.Connection, now: Stamp) -> None:
    """From version 1: one id for the life of the file, seqs as numbers, ages by the wall clock."""
    identity, next_number = database.execute("SELECT id, next_seq FROM outbox").fetchone()
    database.execute("DROP TABLE outbox")
    database.execute("ALTER TABLE messages RENAME COLUMN seq TO number")
    # A message whose time cannot be right gets an age of 0.
    database.execute(
        "UPDATE messages SET added_ms = :outbox_ms - CASE"
        " WHEN added_ms BETWEEN :credible_ms AND :wall_ms THEN :wall_ms - added_ms ELSE 0 END",
        {"outbox_ms": now.outbox_ms, "wall_ms": now.wall_ms, "credible_ms": CREDIBLE_MS},
    )
    database.execute(_IDS)
    database.execute(_STATE)
    database.execute(
        "INSERT INTO ids SELECT 1, ? WHERE EXISTS (SELECT 1 FROM messages)", (identity,)
    )
    database.execute(
        "INSERT INTO state VALUES (?, 0, ?, ?, ?, ?)",
        (next_number, *now),
    )
    database.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")
