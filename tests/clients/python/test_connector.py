"""One attempt to connect: to a gateway, to something else, and to nothing."""

import asyncio
import contextlib
import ssl

import pytest

from support.scripted import answer, friendly
from support.socket_gateway import on_sockets
from support.waiting import within
from tidegate.answers import Meaning
from tidegate.clock import Clock
from tidegate.connection import Closed, NotAGateway, Refused, Silent
from tidegate.connector import Connector
from tidegate.dialer import Dialer


def connector(*, tls=None, open_timeout_s=20.0):
    clock = Clock()
    return Connector(
        clock, Dialer(clock), tls=tls, open_timeout_s=open_timeout_s, ping_interval_s=30.0
    )


@contextlib.asynccontextmanager
async def saying(*chunks, stay=False, tls=None):
    """A server that answers a request with `chunks`. Yields its address."""
    done = asyncio.Event()

    async def serve(reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            for chunk in chunks:
                writer.write(chunk)
            await writer.drain()
            if stay:
                await done.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    scheme = "wss" if tls is not None else "ws"
    async with server:
        yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/device"
        done.set()


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        (
            b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: wrong\r\n\r\n"
        ),
        b"HTTP/1.1 401 x\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 401 x\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n",
        b"HTTP/1.1 401 x\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
    ids=lambda said: repr(said[:40]),
)
async def test_an_answer_that_is_no_handshake_is_not_of_a_gateway(said):
    async with saying(said) as url:
        with pytest.raises((NotAGateway, Silent)):
            await within(connector().connect(url, "t", None))


async def test_an_end_without_an_answer_is_silence():
    async with saying() as url:
        with pytest.raises(Silent, match="before an answer"):
            await within(connector().connect(url, "t", None))


@pytest.mark.parametrize(
    "said", [(), (b"HTTP/1.1 503 x\r\nContent-Length: 100\r\n\r\n", b"never whole")]
)
async def test_a_missing_answer_is_silence(said):
    async with saying(*said, stay=True) as url:
        with pytest.raises(Silent, match=r"within 0\.2 s"):
            await within(connector(open_timeout_s=0.2).connect(url, "t", None))


async def test_a_refusal_is_raised_with_its_meaning():
    async with on_sockets(answer(401, {"error": "credential"})) as gateway:
        with pytest.raises(Refused) as caught:
            await within(connector().connect(gateway.url, "t", "slot"))
    assert caught.value.refusal.meaning is Meaning.CREDENTIAL
    assert gateway.knocks[0].ticket == "slot"


async def test_a_cancelled_knock_leaves_no_connection():
    async with saying(stay=True) as url:
        knocking = asyncio.create_task(connector().connect(url, "t", None))
        await asyncio.sleep(0.01)
        knocking.cancel()
        await asyncio.wait({knocking})
        assert knocking.cancelled()


async def test_a_server_with_a_foreign_certificate_is_no_gateway(tmp_path):
    pytest.importorskip("cryptography", reason="makes a certificate")
    from loadtest.servers.certificates import make_certificate

    files = make_certificate(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.cert, files.key)
    trusting = files.client_context()
    async with saying(stay=True, tls=server) as url:
        with pytest.raises(NotAGateway, match=r"TLS: .*(self.signed|unable to get local issuer)"):
            await within(connector(tls=ssl.create_default_context()).connect(url, "t", None))
        with pytest.raises(Silent):
            await within(connector(tls=trusting, open_timeout_s=0.5).connect(url, "t", None))


async def test_a_server_without_tls_is_no_gateway_for_wss(tmp_path):
    async with saying(b"HTTP/1.1 400 x\r\n\r\n") as url:
        with pytest.raises((NotAGateway, Silent)):
            await within(
                connector(tls=ssl.create_default_context(), open_timeout_s=1).connect(
                    url.replace("ws://", "wss://"), "t", None
                )
            )


async def test_an_open_connection_sends_and_receives():
    async with on_sockets(friendly) as gateway:
        connection = await within(connector().connect(gateway.url, "t", None))
        await connection.send(b'{"hello":{"outbox":"box","oldest":1}}')
        assert b'"welcome"' in await within(connection.receive())
        await connection.close()
        with pytest.raises(Closed):
            await connection.receive()
        with pytest.raises(Closed):
            await connection.send(b"{}")


async def test_an_end_says_how_the_peer_closed_it():
    async def close(peer):
        await peer.close(4409, {"error": "taken_over"})

    async def cut(peer):
        peer.cut()

    async with on_sockets(close, cut) as gateway:
        for code, reason in ((4409, '{"error": "taken_over"}'), (1006, "")):
            connection = await within(connector().connect(gateway.url, "t", None))
            with pytest.raises(Closed) as closed:
                await within(connection.receive())
            assert (closed.value.code, closed.value.reason) == (code, reason)
            await connection.close()


async def test_a_connection_can_be_cut_from_this_side():
    ended = asyncio.Event()

    async def wait(peer):
        await peer.gone()
        ended.set()

    async with on_sockets(wait) as gateway:
        connection = await within(connector().connect(gateway.url, "t", None))
        connection.abort()
        await within(ended.wait())
