"""Connections that other processes hold, and what their server sees of the cut."""

import asyncio

import pytest

from loadtest.devices.held import HeldConnections
from support.waiting import eventually, within

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
WELCOME = b'{"welcome":{"session":"s","credit":4,"resume":{"outbox":"load","seq":0}}}'


class Server:
    """Welcomes every device."""

    def __init__(self):
        self.held = 0
        self.ended = []
        self.writers = []

    async def serve(self, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH)
        await reader.readexactly(2)  # of its hello
        writer.write(bytes((0x81, len(WELCOME))) + WELCOME)
        self.held += 1
        self.writers.append(writer)
        try:
            while await reader.read(1_000):
                pass
            self.ended.append("end of stream")
        except ConnectionResetError:
            self.ended.append("reset")
        writer.close()


@pytest.mark.long  # it starts two processes
async def test_a_cut_ends_every_connection_and_no_process_is_left():
    server = Server()
    tokens = [(f"d-{number}", "token") for number in range(20)]
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        async with HeldConnections(port, tokens, connect_per_s=1_000) as held:
            assert (server.held, server.ended) == (20, [])
            server.writers[0].write_eof()  # as a gateway does to a device that has come back
            await eventually(lambda: len(server.ended) == 1)
            assert await within(held.cut()) > 0
            await eventually(lambda: len(server.ended) == 20)
            assert [each._process.returncode for each in held._processes] == [0, 0]
    assert server.ended == ["end of stream"] * 20
