"""Fixtures for tests that need a database. A conftest imports them."""

from collections.abc import Iterator

import pytest

from loadtest.servers.postgres import PostgresServer
from support.postgres import GIVEN_URL, drop_database, fresh_database, shared_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer | None]:
    yield from shared_server()


@pytest.fixture
def database(postgres) -> Iterator[str]:
    server_url = GIVEN_URL if postgres is None else postgres.url()
    url = fresh_database(server_url)
    yield url
    drop_database(server_url, url)
