"""Sinks that are wrong on purpose: what checks sinks must find them out.

python tests/support/broken_sink.py no-lock sink --events=...
python tests/support/broken_sink.py position-apart sink --events=...
"""

import asyncio
import sys

import psycopg

from gateway.cli import main
from gateway.consumers.postgres import target as postgres
from gateway.consumers.postgres.sqlstate import as_consumer_error
from gateway.consumers.target import Rejected


async def _no_lock(_self, connection):
    """Neither owner nor position is looked at: two processes may write the same events."""
    await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")


async def _always_owner(_self):
    """No sign of life is asked for: whoever starts owns the sink."""
    return True


async def _never_lost(_self):
    pass


async def _position_apart(self, events, after, bury):
    """Rows in one transaction, their position in another: a death between them doubles rows."""
    encoder = self._encoder
    connection = self._live()
    try:
        async with connection.transaction():
            await self._lock_position(connection)
            lines = [encoder.encode(event) for event in events]
            refused = await self._insert(connection, lines)
        if refused:
            await bury([Rejected(events[place], *why) for place, *why in refused])
        await asyncio.sleep(2.0)  # a busy database: most faults fall in between
        async with connection.transaction():
            await connection.execute(
                "UPDATE tidegate_sink SET position = %s, message_id = %s WHERE name = %s",
                (after.seq, after.message_id, self._sink.name),
            )
    except psycopg.Error as exc:
        raise as_consumer_error(exc) from exc
    self._position = after
    return len(refused)


if __name__ == "__main__":
    control = sys.argv.pop(1)
    if control == "no-lock":
        postgres.PostgresTarget._lock_position = _no_lock
        postgres.Ownership.take = _always_owner
        postgres.Ownership.beat = _never_lost
    elif control == "position-apart":
        postgres.PostgresTarget.write = _position_apart
    else:
        sys.exit(f"no control {control}")
    main()
