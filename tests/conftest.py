from collections.abc import AsyncIterator

import pytest
import uvloop
from support.gateways import WAYS, running_gateway

from gateway.app import Gateway


def pytest_asyncio_loop_factories(config, item):
    """Every async test runs on the loop of production."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def gateway(tmp_path) -> AsyncIterator[Gateway]:
    async with running_gateway(tmp_path) as running:
        yield running


@pytest.fixture(params=WAYS, ids=str)
def way(request):
    """How devices come: plain TCP or TLS, with their credential in a header or a subprotocol."""
    return request.param


@pytest.fixture
async def ways_gateway(tmp_path, way) -> AsyncIterator[Gateway]:
    """A gateway in each of the ways."""
    async with running_gateway(tmp_path, way=way) as running:
        yield running
