"""A real PostgreSQL for tests: one server a process, a database a test."""

import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg import sql

from loadtest.servers.postgres import PostgresServer

GIVEN_URL = os.environ.get("TIDEGATE_TEST_POSTGRES_URL")
"""A server of the developer's, in which databases may be made."""

_numbers = itertools.count(1)


def fresh_database(server_url: str) -> str:
    """The URL of a new, empty database."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return psycopg.conninfo.make_conninfo(server_url, dbname=name)


def drop_database(server_url: str, url: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(str(name)))
        )


def shared_server() -> Iterator[PostgresServer | None]:
    """A server that many tests share; None if the developer has given one."""
    if GIVEN_URL is not None:
        yield None
        return
    # Not below pytest's folder: each session of pytest closes that to all users but its own.
    with (
        tempfile.TemporaryDirectory(prefix="tidegate-postgres-") as directory,
        PostgresServer(Path(directory)) as server,
    ):
        yield server
