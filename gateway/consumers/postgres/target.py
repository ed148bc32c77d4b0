"""A sink's table in PostgreSQL: rows and position in one transaction.

                    SELECT .. FOR UPDATE        COPY            UPDATE          COMMIT
    (batch) -----> position and owner as ----> rows -----> position moves ----> both, or neither
                   expected? else stand by      |
                                                +--> a row that does not fit becomes a dead letter

Two processes may believe that they own a sink, if one was stopped and goes on. The lock on the
position's row decides: a process that finds another owner or another position there writes nothing.

The owner gives its signs of life on a connection of its own (`Ownership`), so that a long
transaction is not taken for a dead process. A stopped owner blocks others for a bounded time only:
timeouts end its statements, and its successor ends its backend.
"""

from collections.abc import Sequence
from typing import Final

import psycopg
from psycopg import sql

from gateway.consumers.errors import NotOwner, TargetAway, TargetRefused
from gateway.consumers.postgres.catalogue import (
    BOOKKEEPING,
    Connection,
    check_rights,
    table_columns,
    table_name,
)
from gateway.consumers.postgres.ownership import Ownership
from gateway.consumers.postgres.sqlstate import (
    READ_ONLY_ADVICE,
    as_consumer_error,
    copy_line,
    describe,
    is_row_error,
    word_of,
)
from gateway.consumers.postgres.statements import (
    EMPTY_BATCH,
    Statements,
    rights_of,
    statements_of,
)
from gateway.consumers.target import Bury, Rejected
from gateway.events.columns import RowEncoder, row_encoder
from gateway.events.document import PostgresSink
from gateway.events.errors import ColumnError, RowError
from gateway.events.event import Event
from gateway.events.position import Position

_CONNECT_TIMEOUT_S: Final = 5
_STATEMENT_TIMEOUT_MS: Final = 30_000
_IDLE_TIMEOUT_MS: Final = 10_000
_LOCK_TIMEOUT_MS: Final = 10_000
_TRANSACTION_TIMEOUT_SINCE: Final = 170_000
_WRITE_BYTES: Final = 262_144


class PostgresTarget:
    """One sink's table in one database."""

    ahead = 1

    def __init__(self, sink: PostgresSink, url: str, *, owner: str) -> None:
        """
        Args:
            sink: what to write, and where.
            url: of the database; holds a secret and is never shown.
            owner: this process, as no other calls itself.
        """
        self._sink = sink
        self._url = url
        self._owner = owner
        self._connection: Connection | None = None
        self._ownership: Ownership | None = None
        self._encoder: RowEncoder | None = None
        self._position: Position | None = None
        self._statements: Statements | None = None

    async def open(self) -> None:
        try:
            await self._open()
        except psycopg.Error as exc:
            await self.close()
            raise as_consumer_error(exc) from exc
        except ColumnError as exc:
            await self.close()
            raise TargetRefused(str(exc)) from exc
        except BaseException:  # cancelled in the middle of connecting: no connection stays behind
            await self.close()
            raise

    async def _open(self) -> None:
        self._connection = connection = await self._connect("data")
        if connection.info.server_version >= _TRANSACTION_TIMEOUT_SINCE:
            await connection.execute(f"SET transaction_timeout = {2 * _STATEMENT_TIMEOUT_MS}")
        await self._check_writable(connection)
        await self._ensure_bookkeeping(connection)
        sink = self._sink
        found = await table_columns(connection, sink.name, sink.table)
        self._encoder = encoder = row_encoder(sink.name, sink.table, sink.columns, found)
        await check_rights(connection, sink.name, sink.table, rights_of(sink))
        self._statements = statements = statements_of(sink, encoder.columns)
        if statements.prepare is not None:
            await connection.execute(statements.prepare)
        self._ownership = Ownership(
            await self._connect("owner"), sink.name, self._owner, connection.info.backend_pid
        )

    async def _connect(self, role: str) -> Connection:
        return await psycopg.AsyncConnection.connect(
            self._url,
            autocommit=True,
            connect_timeout=_CONNECT_TIMEOUT_S,
            application_name=f"tidegate-sink-{self._sink.name}-{role}",
            keepalives_idle=3,
            keepalives_interval=2,
            keepalives_count=3,
            tcp_user_timeout=10_000,
            options=f"-c statement_timeout={_STATEMENT_TIMEOUT_MS}"
            f" -c idle_in_transaction_session_timeout={_IDLE_TIMEOUT_MS}"
            f" -c lock_timeout={_LOCK_TIMEOUT_MS}"
            " -c tcp_keepalives_idle=3 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3"
            " -c client_min_messages=warning -c datestyle=ISO -c timezone=UTC",
        )

    async def _check_writable(self, connection: Connection) -> None:
        found = await (await connection.execute("SHOW transaction_read_only")).fetchone()
        if found == ("on",):
            raise TargetRefused(f"sink {self._sink.name}: {READ_ONLY_ADVICE}")

    async def _ensure_bookkeeping(self, connection: Connection) -> None:
        found = await (
            await connection.execute(
                "SELECT to_regclass('tidegate_sink'), to_regclass('tidegate_sink_owner')"
            )
        ).fetchone()
        if found is not None and None not in found:
            return
        try:
            await connection.execute(BOOKKEEPING)
        except psycopg.errors.UniqueViolation:
            return  # another sink makes them in this moment
        except psycopg.errors.InsufficientPrivilege as exc:
            raise TargetRefused(
                f"sink {self._sink.name}: the tables tidegate_sink and tidegate_sink_owner are"
                f" missing and may not be created ({describe(exc)}); `tidegate sink --create`"
                " prints them"
            ) from exc

    # Ownership

    async def claim(self) -> tuple[bool, Position | None]:
        assert self._ownership is not None
        try:
            if not await self._ownership.take():
                return False, None
            return True, await self._take_position()
        except psycopg.Error as exc:
            raise as_consumer_error(exc) from exc

    async def beat(self) -> None:
        """Show that this process lives. Call it every second.

        Raises:
            NotOwner: another process took over.
            TargetAway: the database does not answer.
        """
        assert self._ownership is not None
        try:
            await self._ownership.beat()
        except psycopg.Error as exc:
            raise as_consumer_error(exc) from exc

    async def _take_position(self) -> Position | None:
        """From now on, a transaction of the previous owner finds that it is not the owner."""
        connection = self._live()
        row = await (
            await connection.execute(
                "UPDATE tidegate_sink SET owner = %s WHERE name = %s"
                " RETURNING stream_created, position, message_id",
                (self._owner, self._sink.name),
            )
        ).fetchone()
        self._position = None
        if row is not None:
            self._position = Position(str(row[0]), int(str(row[1])), str(row[2]))
        return self._position

    async def begin(self, position: Position) -> None:
        connection = self._live()
        try:
            cursor = await connection.execute(
                "INSERT INTO tidegate_sink (name, owner, stream_created, position, message_id)"
                " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (name) DO NOTHING",
                (
                    self._sink.name,
                    self._owner,
                    position.created,
                    position.seq,
                    position.message_id,
                ),
            )
        except psycopg.Error as exc:
            raise as_consumer_error(exc) from exc
        if cursor.rowcount != 1:
            raise NotOwner("another process began this sink")
        self._position = position

    async def release(self) -> None:
        assert self._ownership is not None
        try:
            await self._ownership.release()
        except psycopg.Error as exc:
            raise as_consumer_error(exc) from exc

    async def forget(self) -> None:
        """Forget the position, so that the sink begins anew; its table must be empty.

        Raises:
            TargetRefused: the table holds rows, or the database refuses.
            TargetAway: the database does not answer.
        """
        connection, sink = self._live(), self._sink
        query = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(table_name(sink.table))
        try:
            row = await (await connection.execute(query)).fetchone()
            if row is not None and row[0]:
                raise TargetRefused(
                    f"sink {sink.name}: table {sink.table} holds rows; --rebuild fills an empty"
                    " table: name a new one, or truncate this one"
                )
            await connection.execute("DELETE FROM tidegate_sink WHERE name = %s", (sink.name,))
        except psycopg.Error as exc:
            raise as_consumer_error(exc) from exc

    # Writing

    def hand(self, events: Sequence[Event]) -> None:
        """A batch is written at once, and no other one meanwhile."""

    async def write(self, events: Sequence[Event], after: Position, bury: Bury) -> int:
        encoder = self._encoder
        assert encoder is not None
        rejected: list[Rejected] = []
        kept: list[Event] = []
        lines: list[bytes] = []
        with_seq = self._statements is not None and self._statements.merge is not None
        for event in events:
            try:
                line = encoder.encode(event)
            except RowError as exc:
                rejected.append(Rejected(event, "column", str(exc)))
                continue
            kept.append(event)
            lines.append(b"%d\t%b" % (event.stream_seq, line) if with_seq else line)
        connection = self._live()
        try:
            async with connection.transaction():
                await self._lock_position(connection)
                if lines:
                    refused = await self._insert(connection, lines)
                    rejected += [Rejected(kept[place], *why) for place, *why in refused]
                if rejected:
                    rejected.sort(key=lambda each: each.event.stream_seq)
                    await bury(rejected)
                await connection.execute(
                    "UPDATE tidegate_sink SET stream_created = %s, position = %s,"
                    " message_id = %s, updated_at = clock_timestamp() WHERE name = %s",
                    (after.created, after.seq, after.message_id, self._sink.name),
                )
        except psycopg.Error as exc:
            raise as_consumer_error(exc) from exc
        self._position = after
        return len(rejected)

    async def _lock_position(self, connection: Connection) -> None:
        row = await (
            await connection.execute(
                "SELECT owner, position FROM tidegate_sink WHERE name = %s FOR UPDATE",
                (self._sink.name,),
            )
        ).fetchone()
        expected = self._position
        assert expected is not None
        if row is None or row != (self._owner, expected.seq):
            raise NotOwner(f"owner and position are {row}, not {(self._owner, expected.seq)}")
        # A deferred constraint would fail the whole batch at its commit, and blame no row.
        await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")

    async def _insert(
        self, connection: Connection, lines: Sequence[bytes]
    ) -> list[tuple[int, str, str]]:
        """Put in all lines but those that the table refuses.

        Returns:
            For each of those its place, the error's name and the database's message.
        """
        refused: list[tuple[int, str, str]] = []
        ranges = [(0, len(lines))]
        while ranges:
            first, end = ranges.pop()
            try:
                async with connection.transaction():  # a savepoint
                    await self._put(connection, lines[first:end])
            except psycopg.Error as exc:
                if not is_row_error(exc):
                    raise
                if end - first == 1:
                    refused.append((first, word_of(exc), describe(exc)))
                    continue
                named = copy_line(exc)
                if named is not None and 1 <= named <= end - first:
                    # COPY took all lines before the one that it names, so they fit.
                    place = first + named - 1
                    refused.append((place, word_of(exc), describe(exc)))
                    ranges += [(place + 1, end), (first, place)]
                else:
                    middle = (first + end) // 2
                    ranges += [(middle, end), (first, middle)]
                ranges = [each for each in ranges if each[0] < each[1]]
        return sorted(refused)

    async def _put(self, connection: Connection, lines: Sequence[bytes]) -> None:
        statements = self._statements
        assert statements is not None
        async with connection.cursor() as cursor:
            async with cursor.copy(statements.copy) as copy:
                block = b"".join(lines)
                for start in range(0, len(block), _WRITE_BYTES):
                    await copy.write(block[start : start + _WRITE_BYTES])
            if statements.merge is not None:
                await cursor.execute(statements.merge)
                await cursor.execute(EMPTY_BATCH)

    def _live(self) -> Connection:
        if self._connection is None or self._connection.closed:
            raise TargetAway("there is no connection to the database")
        return self._connection

    async def close(self) -> None:
        ownership, self._ownership = self._ownership, None
        connection, self._connection = self._connection, None
        if ownership is not None:
            await ownership.close()
        if connection is not None:
            await connection.close()
