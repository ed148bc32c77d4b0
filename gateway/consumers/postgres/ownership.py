"""Who owns a sink: a row with the owner's sign of life, kept on a connection of its own.

The owner renews it every second. A process that finds it older than the lease takes over, and
first ends the backend of the previous owner: an owner that was stopped in the middle of a COPY
still holds the lock of the position, and PostgreSQL does not notice that its client is stopped.
"""

from typing import Final

from gateway.consumers.errors import NotOwner
from gateway.consumers.postgres.catalogue import Connection

LEASE_S: Final = 5.0
"""An owner that gives no sign of life for so long has lost the sink."""


class Ownership:
    """One sink's ownership, as one process sees it. All times are the database's."""

    def __init__(self, connection: Connection, sink: str, owner: str, backend_pid: int) -> None:
        """
        Args:
            connection: for signs of life alone.
            sink: its name.
            owner: this process.
            backend_pid: the backend which writes the rows; a successor can end it.
        """
        self._connection = connection
        self._sink = sink
        self._owner = owner
        self._backend_pid = backend_pid

    async def take(self) -> bool:
        """Become the owner if there is none, or if the owner gives no sign of life.

        Raises:
            psycopg.Error: the database does not answer.
        """
        connection = self._connection
        async with connection.transaction():
            row = await (
                await connection.execute(
                    "SELECT owner, backend_pid,"
                    " beat_at < clock_timestamp() - make_interval(secs => %s)"
                    " FROM tidegate_sink_owner WHERE name = %s FOR UPDATE",
                    (LEASE_S, self._sink),
                )
            ).fetchone()
            if row is not None and row[0] != self._owner:
                if not row[2]:
                    return False
                await self._end_backend(row[1])
            cursor = await connection.execute(
                "INSERT INTO tidegate_sink_owner VALUES (%s, %s, %s, clock_timestamp())"
                " ON CONFLICT (name) DO UPDATE SET owner = EXCLUDED.owner,"
                " backend_pid = EXCLUDED.backend_pid, beat_at = EXCLUDED.beat_at"
                # Without a row there was none to lock: another process may have made it meanwhile.
                " WHERE %s OR tidegate_sink_owner.owner = EXCLUDED.owner",
                (self._sink, self._owner, self._backend_pid, row is not None),
            )
            return cursor.rowcount == 1

    async def _end_backend(self, backend_pid: object) -> None:
        # By its name too: the number may belong to another client by now.
        await self._connection.execute(
            "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity"
            " WHERE pid = %s AND application_name = %s",
            (backend_pid, f"tidegate-sink-{self._sink}-data"),
        )

    async def beat(self) -> None:
        """Show that this process lives.

        Raises:
            NotOwner: another process took over.
            psycopg.Error: the database does not answer.
        """
        cursor = await self._connection.execute(
            "UPDATE tidegate_sink_owner SET beat_at = clock_timestamp()"
            " WHERE name = %s AND owner = %s",
            (self._sink, self._owner),
        )
        if cursor.rowcount != 1:
            raise NotOwner(f"sink {self._sink} has another owner")

    async def release(self) -> None:
        """Give up the ownership, so that the next owner need not wait for the lease to end."""
        await self._connection.execute(
            "DELETE FROM tidegate_sink_owner WHERE name = %s AND owner = %s",
            (self._sink, self._owner),
        )

    async def close(self) -> None:
        await self._connection.close()
