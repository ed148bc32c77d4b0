"""A crowd that knocks from a process of its own."""

import asyncio

import pytest

from loadtest.devices.knockers import Knockers
from support.waiting import eventually, within

REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nTidegate-Retry-After-Ms: 60000\r\n"
    b"Content-Length: 0\r\n\r\n"
)


@pytest.mark.long  # it starts a process
async def test_the_devices_knock_once_they_are_told_to_and_their_knocks_are_counted():
    knocks = []

    async def refuse(reader, writer):
        knocks.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(REFUSAL)
        writer.close()

    tokens = [(f"ticket-{number}", f"token-{number}") for number in range(10)]
    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        async with Knockers(port, tokens, first_retry_ms=100) as knockers:
            assert knocks == []
            await within(knockers.begin())
            await eventually(lambda: len(knocks) == 10)
            assert await within(knockers.end()) == 10
    assert any(b"token-3" in knock for knock in knocks)
