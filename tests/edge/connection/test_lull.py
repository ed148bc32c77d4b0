"""A device that reads again: its session hears of it at once, over TLS as without.

A state or a command that was held back goes out then, not with the next ping.
"""

import asyncio
import socket
import ssl

import pytest

from loadtest.servers.certificates import make_certificate
from support.echo_connections import Wire, masked
from support.waiting import eventually

RECEIVE_BYTES = 4_096
"""The smallest buffer of a client, so that the gateway soon has more than the network takes."""
TEXT = b"x" * 60_000
TEXTS_MAX = 500


async def connect(port, trusted):
    """A client that reads nothing until it is asked to."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    name = "localhost" if trusted is not None else None
    streams = await asyncio.open_connection(
        sock=sock, ssl=trusted, server_hostname=name, limit=RECEIVE_BYTES
    )
    return Wire(*streams)


@pytest.mark.parametrize("over_tls", [False, True], ids=["plain", "TLS"])
async def test_the_handler_hears_at_once_that_its_peer_reads_again(serve, tmp_path, over_tls):
    trusted = context = None
    if over_tls:
        files = make_certificate(tmp_path)
        trusted = files.client_context()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.cert, files.key)
    rig = await serve(tls=context, keepalive_interval_s=86_400.0)
    client = await connect(rig.port, trusted)
    try:
        await client.handshake()
        [handler] = rig.opened
        sent = 0
        while not handler.connection.congested:
            assert sent < TEXTS_MAX, "the gateway never noticed that nobody reads"
            client.send(masked(1, TEXT))
            sent += 1
            await asyncio.sleep(0)
        assert rig.keepalives == 0
        for _ in range(sent):
            await client.frame()
        await eventually(lambda: rig.keepalives)
        assert not handler.connection.congested
    finally:
        client.writer.transport.abort()
