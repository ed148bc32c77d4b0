from collections.abc import AsyncIterator

import pytest
import uvloop
from support.gateways import running_gateway

from gateway.app import Gateway


def pytest_asyncio_loop_factories(config, item):
    """Every async test runs on the loop of production."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def gateway(tmp_path) -> AsyncIterator[Gateway]:
    async with running_gateway(tmp_path) as running:
        yield running
