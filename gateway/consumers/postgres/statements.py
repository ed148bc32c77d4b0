"""The SQL with which a batch of rows gets into a sink's table.

Without `on_conflict` rows are copied straight into the table. With it they are copied into a
temporary table of the connection first, because COPY itself knows no conflicts:

    COPY tidegate_batch -> INSERT .. SELECT .. ON CONFLICT -> DELETE FROM tidegate_batch
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from psycopg import sql

from gateway.consumers.postgres.catalogue import table_name
from gateway.events.document import PostgresSink

_BATCH: Final = sql.Identifier("tidegate_batch")
_SEQ: Final = sql.Identifier("tidegate_stream_seq")
EMPTY_BATCH: Final = sql.SQL("DELETE FROM {}").format(_BATCH)


@dataclass(frozen=True, slots=True)
class Statements:
    """The statements of one sink. With `merge`, each line of `copy` begins with the sequence."""

    copy: sql.Composed
    prepare: sql.Composed | None = None
    """Once for each connection, before anything else."""
    merge: sql.Composed | None = None
    """After each `copy`, and then EMPTY_BATCH."""


def statements_of(sink: PostgresSink, names: Sequence[str]) -> Statements:
    """The statements for a sink whose rows have columns of these names, in this order."""
    columns = sql.SQL(", ").join(map(sql.Identifier, names))
    table = table_name(sink.table)
    if sink.on_conflict == "error":
        return Statements(_copy_into(table, columns))
    prepare = sql.SQL(
        "CREATE TEMPORARY TABLE {} ON COMMIT DELETE ROWS AS"
        " SELECT 0::bigint AS {}, {} FROM {} WITH NO DATA"
    ).format(_BATCH, _SEQ, columns, table)
    copy = _copy_into(_BATCH, sql.SQL(", ").join([_SEQ, columns]))
    return Statements(copy, prepare, _merge(sink, table, columns))


def rights_of(sink: PostgresSink) -> Mapping[str, Sequence[str]]:
    """Which privileges the statements need, on which columns."""
    names = tuple(sink.columns)
    if sink.on_conflict == "error":
        return {"INSERT": names}
    # The temporary table is made from the columns, and conflicts are found by reading the key.
    if sink.on_conflict == "nothing":
        return {"INSERT": names, "SELECT": names}
    return {"INSERT": names, "SELECT": names, "UPDATE": names}


def _copy_into(table: sql.Identifier, columns: sql.Composed) -> sql.Composed:
    return sql.SQL("COPY {} ({}) FROM STDIN").format(table, columns)


def _merge(sink: PostgresSink, table: sql.Identifier, columns: sql.Composed) -> sql.Composed:
    key = sql.SQL(", ").join(map(sql.Identifier, sink.key))
    target = sql.SQL("({})").format(key) if sink.key else sql.SQL("")
    if sink.on_conflict == "nothing":
        return sql.SQL(
            "INSERT INTO {} ({}) SELECT {} FROM {} ORDER BY {} ON CONFLICT {} DO NOTHING"
        ).format(table, columns, columns, _BATCH, _SEQ, target)
    newest = sql.Identifier(sink.sequence_column or "")
    changes = sql.SQL(", ").join(
        sql.SQL("{} = EXCLUDED.{}").format(sql.Identifier(name), sql.Identifier(name))
        for name in sink.columns
        if name not in sink.key
    )
    return sql.SQL(
        "INSERT INTO {} AS old ({}) SELECT DISTINCT ON ({}) {} FROM {} ORDER BY {}, {} DESC"
        " ON CONFLICT {} DO UPDATE SET {} WHERE old.{} IS NULL OR old.{} < EXCLUDED.{}"
    ).format(
        table, columns, key, columns, _BATCH, key, _SEQ, target, changes, newest, newest, newest
    )  # fmt: skip
