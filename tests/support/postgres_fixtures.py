"""Fixtures for tests that need a database. A conftest imports them."""

from collections.abc import Iterator

import pytest

from support.postgres import drop_database, fresh_database, shared_server


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    yield from shared_server()


@pytest.fixture
def database(postgres_url) -> Iterator[str]:
    url = fresh_database(postgres_url)
    yield url
    drop_database(postgres_url, url)
