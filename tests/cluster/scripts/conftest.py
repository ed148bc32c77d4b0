"""A real Redis for the Lua scripts."""

import pytest
import redis

from support.servers import redis_server


@pytest.fixture(scope="module")
def server():
    with redis_server() as running:
        yield running


@pytest.fixture
def client(server):
    client = redis.Redis(port=server.port, decode_responses=True)
    client.flushall()
    yield client
    client.close()
