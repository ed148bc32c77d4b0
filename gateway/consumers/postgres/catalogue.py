"""A sink's table in PostgreSQL's catalogue, and the DDL of the tables that a sink needs."""

from collections.abc import Mapping, Sequence
from typing import Final

from psycopg import AsyncConnection, sql

from gateway.consumers.errors import TargetRefused
from gateway.events.cells import TableColumn
from gateway.events.columns import Constant, EventMember, Member, Source

Connection = AsyncConnection[tuple[object, ...]]

BOOKKEEPING: Final = """\
CREATE TABLE IF NOT EXISTS tidegate_sink (
    name text PRIMARY KEY,
    owner text NOT NULL,
    stream_created text NOT NULL,
    position bigint NOT NULL,
    message_id text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE IF NOT EXISTS tidegate_sink_owner (
    name text PRIMARY KEY,
    owner text NOT NULL,
    backend_pid integer NOT NULL,
    beat_at timestamptz NOT NULL
);
"""
"""A sink's position, which a transaction locks, and the sign of life of its owner, which must not
wait for that lock."""

_COLUMNS: Final = """\
SELECT a.attname, t.typname, a.attnotnull OR t.typnotnull, a.atthasdef OR a.attidentity <> '',
       a.attgenerated <> '' OR a.attidentity = 'a'
FROM pg_attribute a
JOIN pg_type d ON d.oid = a.atttypid
JOIN pg_type t ON t.oid = CASE WHEN d.typtype = 'd' THEN d.typbasetype ELSE d.oid END
WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""

_MEMBER_TYPES: Final[Mapping[Member, str]] = {
    "tenant": "text NOT NULL",
    "device": "text NOT NULL",
    "type": "text NOT NULL",
    "outbox": "text",
    "seq": "bigint",
    "time": "timestamptz",
    "stored_at": "timestamptz NOT NULL",
    "stream_seq": "bigint NOT NULL",
    "data": "jsonb NOT NULL",
}


def table_name(table: str) -> sql.Identifier:
    """`schema.table` or `table`, quoted."""
    return sql.Identifier(*table.split(".", 1))


async def table_columns(connection: Connection, sink: str, table: str) -> list[TableColumn]:
    """The columns of a table.

    Raises:
        TargetRefused: there is no such table.
        psycopg.Error: the database does not answer.
    """
    quoted = table_name(table).as_string(connection)
    found = await (await connection.execute("SELECT to_regclass(%s)", (quoted,))).fetchone()
    if found is None or found[0] is None:
        raise TargetRefused(
            f"sink {sink}: there is no table {table}. `tidegate sink --create` prints one."
        )
    rows = await (await connection.execute(_COLUMNS, (quoted,))).fetchall()
    return [
        TableColumn(str(name), str(kind), bool(not_null), bool(default), bool(generated))
        for name, kind, not_null, default, generated in rows
    ]


_RIGHTS: Final = """\
SELECT wanted.privilege, wanted.name
FROM unnest(%s::text[], %s::text[]) AS wanted (privilege, name)
WHERE NOT has_column_privilege(%s::regclass, wanted.name, wanted.privilege)
"""


async def check_rights(
    connection: Connection, sink: str, table: str, wanted: Mapping[str, Sequence[str]]
) -> None:
    """Whether this user may do what the sink does, before the first row shows it.

    Args:
        connection: to the database.
        sink: its name, for messages.
        table: its table, which exists.
        wanted: columns of the table by privilege, such as `INSERT`.

    Raises:
        TargetRefused: a privilege is missing.
        psycopg.Error: the database does not answer.
    """
    pairs = [(privilege, name) for privilege, names in wanted.items() for name in names]
    privileges, names = [each[0] for each in pairs], [each[1] for each in pairs]
    quoted = table_name(table).as_string(connection)
    found = await connection.execute(_RIGHTS, (privileges, names, quoted))
    missing: dict[str, list[str]] = {}
    for privilege, name in await found.fetchall():
        missing.setdefault(str(privilege), []).append(str(name))
    if missing:
        rights = ", ".join(f"{each} ({', '.join(names)})" for each, names in missing.items())
        raise TargetRefused(
            f"sink {sink}, table {table}: the user {connection.info.user} lacks {rights}"
        )


def table_ddl(table: str, columns: Mapping[str, Source], key: Sequence[str]) -> str:
    """A table which a sink's columns fit, to be edited: what is inside `data` may be anything."""
    lines = [f"    {_quoted(name)} {_type_of(source)}" for name, source in columns.items()]
    if key:
        lines.append(f"    PRIMARY KEY ({', '.join(map(_quoted, key))})")
    name = ".".join(map(_quoted, table.split(".", 1)))
    return f"CREATE TABLE IF NOT EXISTS {name} (\n" + ",\n".join(lines) + "\n);\n"


def _type_of(source: Source) -> str:
    if isinstance(source, EventMember):
        return _MEMBER_TYPES[source.name]
    if isinstance(source, Constant):
        kinds: dict[type, str] = {bool: "boolean", int: "bigint", float: "double precision"}
        return kinds.get(type(source.value), "text")
    return "jsonb"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
