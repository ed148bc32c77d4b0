"""Begins sinks anew: their positions are forgotten, if their tables are empty."""

import asyncio
import os
import secrets
from collections.abc import Sequence

from gateway.consumers.errors import NotOwner, TargetRefused
from gateway.consumers.postgres.target import PostgresTarget
from gateway.events.document import PostgresSink, Sink


async def forget_position(sinks: Sequence[Sink], database_url: str | None) -> None:
    """Forget the positions of these sinks, so that each fills its empty table anew.

    Raises:
        TargetRefused: a table holds rows, a sink writes no table, or the database refuses.
        NotOwner: a process runs one of them.
        TargetAway: the database does not answer.
    """
    owner = f"rebuild-{os.getpid()}-{secrets.token_hex(4)}"
    for sink in sinks:
        if not isinstance(sink, PostgresSink):
            raise TargetRefused(
                f"sink {sink.name}: --rebuild is for tables; name a new directory instead"
            )
        if database_url is None:
            raise TargetRefused(f"sink {sink.name} needs --database-url")
        target = PostgresTarget(sink, database_url, owner=owner)
        try:
            await target.open()
            mine, _position = await target.claim()
            if not mine:
                raise NotOwner(f"sink {sink.name} runs in another process: stop that first")
            await target.forget()
            await target.release()
        finally:
            await asyncio.shield(target.close())
