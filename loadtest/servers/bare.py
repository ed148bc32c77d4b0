"""The least a server can do with a knock: `python -m loadtest.servers.bare PORT`, on loopback.

It accepts, reads, writes and closes on uvloop. A refusal is measured against it.
"""

import asyncio
import sys
from typing import Final, cast

import uvloop

_ANSWER: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)


class Bare(asyncio.Protocol):
    """Answers whatever comes first, and closes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        del data
        self._transport.write(_ANSWER)
        self._transport.close()


async def serve(port: int) -> None:
    """Serve until the process is ended."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Bare, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
