"""Servers of a fleet."""

import pytest

from support.servers import nats_server, redis_server


@pytest.fixture
def servers(tmp_path):
    with nats_server(tmp_path / "nats") as nats, redis_server() as redis:
        yield nats, redis
