"""Operators' ports, without and with tokens."""

import pytest

from gateway.ops.access import parse_tokens
from support.ops_port import TOKENS, Port


@pytest.fixture
async def ops():
    port = Port()
    port.port = await port.listener.start("127.0.0.1", 0)
    yield port
    await port.listener.stop()


@pytest.fixture
async def guarded():
    """A port with tokens."""
    port = Port(parse_tokens(TOKENS))
    port.port = await port.listener.start("127.0.0.1", 0)
    yield port
    await port.listener.stop()
