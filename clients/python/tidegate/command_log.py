"""The queued commands of a device, in the outbox file: received, handed over, answered.

    RECEIVED --hand over--> GIVEN --answer--> FINISHED --settled--> SETTLED --> forgotten
        |                                        ^
        +--its time has passed-------------------+

A command is recorded before the gateway is told that it was received, and before it is handed to
the application. So the application gets no id twice, whenever the process is killed. A command that
an earlier process handed over and did not answer has the result `unknown`. One whose time has
passed before it could be handed over, by the outbox's own time (`elapsed.py`), has the result
`expired`.

An id is remembered after its result was settled. A gateway does not send such a command again,
unless its queue was put back from a backup. The newest 10,000 ids are remembered, for 31 days at
most, and the newest 100 always. An id that is not settled is never forgotten.

Blocking; one thread at a time.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from tidegate.elapsed import OutboxTime
from tidegate.outbox_file import OutboxFile
from tidegate.outbox_rows import Rows

REMEMBERED_MAX: Final = 10_000
REMEMBERED_ALWAYS: Final = 100
"""A clock that jumps cannot make the device forget these."""
REMEMBERED_S: Final = 31 * 86_400
"""By the outbox's own time (`elapsed.py`)."""
UNKNOWN_RESULT: Final = b'{"error":"unknown"}'
EXPIRED_RESULT: Final = b'{"error":"expired"}'
TTL_MS_MAX: Final = 100 * 365 * 86_400_000
"""A longer time to live is as good as this one, and the file can hold it."""
_RESULT_KEPT_BYTES: Final = 1_024
"""A longer result is not kept once it is settled."""
_TRIM_EVERY: Final = 100

# An older client ignores the tables, so the file keeps its version. It would not know a further
# column of `commands`, so the times of commands have a table of their own.
_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS commands (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,"
    " type TEXT NOT NULL, data BLOB, step INTEGER NOT NULL, ok INTEGER, result BLOB,"
    " at_ms INTEGER NOT NULL)"
)
_TIMES: Final = (
    "CREATE TABLE IF NOT EXISTS command_times (id TEXT PRIMARY KEY, expires_ms INTEGER NOT NULL)"
)
_SETTLE: Final = (
    "UPDATE commands SET step = :settled, data = NULL, type = '', at_ms = :at_ms,"
    " ok = coalesce(ok, 0), result = CASE WHEN step = :given THEN :unknown"
    " WHEN length(result) <= :kept_bytes THEN result END WHERE id = :id AND step < :settled"
)
_TRIM: Final = (
    "DELETE FROM commands WHERE step = :settled AND number <= coalesce((SELECT number FROM commands"
    " WHERE step = :settled ORDER BY number DESC LIMIT 1 OFFSET :count), 0) AND at_ms < :before_ms"
)


class Step(IntEnum):
    """How far a command has come. The values are in the files."""

    RECEIVED = 0
    GIVEN = 1
    FINISHED = 2
    SETTLED = 3


class Outcome(NamedTuple):
    """How a command ended: `data` is JSON."""

    ok: bool
    data: bytes


class Kept(NamedTuple):
    """A command that is not settled, as it was found in the file."""

    id: str
    type: str
    data: bytes
    outcome: Outcome | None
    """None: it was never handed to an application."""


class Arrival(NamedTuple):
    """A queued command that the gateway sent."""

    id: str
    type: str
    data: bytes
    expires_ms: int | None = None
    """From when on it must not be handed over, by the outbox's time; None: it always may."""
    trace: str = ""
    """Of the sender. It is not on the disk, and so empty after a restart."""


class Receipt(NamedTuple):
    """What became of an arrival."""

    is_new: bool
    outcome: Outcome | None = None
    """The stored outcome of a command that is settled."""


class CommandLog:
    """The commands in one open outbox file."""

    def __init__(self, file: OutboxFile, rows: Rows, time: OutboxTime) -> None:
        """
        Args:
            file: of the outbox, open.
            rows: of the same file.
            time: of the outbox, which no wall clock sets back.

        Raises:
            sqlite3.Error: the file cannot be read.
        """
        self._file = file
        self._rows = rows
        self._time = time
        self._settled = 0
        self.kept = self._load()
        """The commands that were not settled when the file was opened, in their order."""

    def _load(self) -> list[Kept]:
        execute = self._file.database.execute
        if not execute("SELECT 1 FROM sqlite_master WHERE name = 'commands'").fetchone():
            return []
        rows = execute(
            "SELECT id, type, coalesce(data, x''), step, ok, result FROM commands WHERE step < ?"
            " ORDER BY number",
            (Step.SETTLED,),
        )
        return [
            Kept(identity, kind, bytes(data), _outcome_found(step, ok, result))
            for identity, kind, data, step, ok, result in rows
        ]

    def advance(self, arrivals: Sequence[Arrival], settled: Sequence[str]) -> list[Receipt]:
        """Record what the gateway sent, in one commit: commands, and ids that it has settled.

        Returns:
            For each of `arrivals` what became of it.

        Raises:
            OutboxError: the disk refused; nothing has changed.
        """
        self._file.check()
        now = self._time.now()
        at_ms = now.outbox_ms
        with self._file.transaction(synced=bool(arrivals)):
            self._file.database.execute(_TABLE)
            self._file.database.execute(_TIMES)
            for identity in settled:
                self._settle(identity, at_ms)
            receipts = [self._receive(arrival, at_ms) for arrival in arrivals]
            if self._settled >= _TRIM_EVERY:
                self._trim(at_ms)
            if arrivals:  # the next process counts their times on from here
                self._rows.save_stamp(now)
        if arrivals:
            self._time.saved(now)
        return receipts

    def _receive(self, arrival: Arrival, at_ms: int) -> Receipt:
        execute = self._file.database.execute
        added = execute(
            "INSERT INTO commands SELECT NULL, ?, ?, ?, ?, NULL, NULL, ?"
            " WHERE NOT EXISTS (SELECT 1 FROM commands WHERE id = ?)",
            (arrival.id, arrival.type, arrival.data, Step.RECEIVED, at_ms, arrival.id),
        )
        if added.rowcount:
            if arrival.expires_ms is not None:
                execute(
                    "INSERT OR REPLACE INTO command_times VALUES (?, ?)",
                    (arrival.id, arrival.expires_ms),
                )
            return Receipt(is_new=True)
        step, ok, result = execute(
            "SELECT step, ok, result FROM commands WHERE id = ?", (arrival.id,)
        ).fetchone()
        if step != Step.SETTLED:
            return Receipt(is_new=False)
        return Receipt(False, Outcome(bool(ok), b"null" if result is None else bytes(result)))

    def _settle(self, identity: str, at_ms: int) -> None:
        values = {
            "id": identity,
            "at_ms": at_ms,
            "given": Step.GIVEN,
            "settled": Step.SETTLED,
            "unknown": UNKNOWN_RESULT,
            "kept_bytes": _RESULT_KEPT_BYTES,
        }
        self._settled += self._file.database.execute(_SETTLE, values).rowcount
        self._file.database.execute("DELETE FROM command_times WHERE id = ?", (identity,))

    def _trim(self, now_ms: int) -> None:
        values = {"settled": Step.SETTLED, "count": REMEMBERED_MAX, "before_ms": now_ms + 1}
        self._file.database.execute(_TRIM, values)
        values |= {"count": REMEMBERED_ALWAYS, "before_ms": now_ms - REMEMBERED_S * 1000}
        self._file.database.execute(_TRIM, values)
        self._settled = 0

    def give(self, identity: str) -> Outcome | None:
        """Record that a command is handed to the application, and hand it over afterwards.

        Returns:
            None, or how the command ended because its time has passed: do not hand it over. It may
            be asked again, if the command was not handed over after all.

        Raises:
            OutboxError: the disk refused, and the command must not be handed over.
        """
        with self._file.transaction():
            execute = self._file.database.execute
            at_ms = self._time.now().outbox_ms
            execute(_TIMES)
            limit = execute(
                "SELECT expires_ms FROM command_times WHERE id = ?", (identity,)
            ).fetchone()
            if limit is not None and limit[0] <= at_ms:
                expired = Outcome(False, EXPIRED_RESULT)
                self._finish(identity, expired, at_ms)
                return expired
            execute(
                "UPDATE commands SET step = ?, at_ms = ? WHERE id = ? AND step = ?",
                (Step.GIVEN, at_ms, identity, Step.RECEIVED),
            )
        return None

    def finish(self, identity: str, outcome: Outcome) -> None:
        """Record how a command ended.

        Raises:
            OutboxError: the disk refused.
        """
        with self._file.transaction():
            self._finish(identity, outcome, self._time.now().outbox_ms)

    def _finish(self, identity: str, outcome: Outcome, at_ms: int) -> None:
        self._file.database.execute(
            "UPDATE commands SET step = ?, ok = ?, result = ?, data = NULL, at_ms = ?"
            " WHERE id = ? AND step < ?",
            (Step.FINISHED, outcome.ok, outcome.data, at_ms, identity, Step.FINISHED),
        )


def _outcome_found(step: int, ok: int | None, result: bytes | None) -> Outcome | None:
    """How a command that is in the file at its opening has ended."""
    if step == Step.RECEIVED:
        return None
    if step == Step.GIVEN or result is None:
        return Outcome(False, UNKNOWN_RESULT)
    return Outcome(bool(ok), bytes(result))
