"""One attempt to connect, and how an address is shown."""

import asyncio

import pytest

from gateway.stream.errors import Unreachable
from gateway.stream.link.dialing import Hooks, NatsAddress, connect_once, dial, without_secret
from support.servers import nats_server
from support.waiting import within


async def test_a_server_that_accepts_and_says_nothing_is_given_up_in_time():
    ended = asyncio.Event()

    async def silent(reader, writer):
        await reader.read()
        writer.close()
        ended.set()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(Unreachable, match=r"TimeoutError|no answer"):
            await within(connect_once(NatsAddress((url,), connect_timeout_s=0.05), name="test"))
        await within(ended.wait())


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://u:p@a:1", "nats://a:1"),
        ("tls://a:1", "tls://a:1"),
        ("u:p@a:1", "a:1"),
    ],
)
def test_a_url_is_shown_without_its_secret(url, shown):
    assert without_secret(url) == shown


async def test_a_lost_connection_is_reported_although_closing_it_fails(tmp_path, monkeypatch):
    """Data was still to be sent: nats-py drains the dead transport, and that raises."""
    lost = asyncio.Event()
    with nats_server(tmp_path) as server:
        address = NatsAddress((server.url,))
        client = await dial(server.url, address, name="test", hooks=Hooks(closed=lost.set))

        async def close(*_):
            raise ConnectionResetError

        monkeypatch.setattr(client, "_close", close)
        server.kill()
        await within(lost.wait())
        monkeypatch.undo()
        await client.discard()


async def test_a_reset_while_data_is_to_be_sent_leaves_no_failed_task(tmp_path, monkeypatch):
    """nats-py writes it to the transport, which is closed, and uvloop refuses that."""
    lost = asyncio.Event()
    with nats_server(tmp_path) as server:
        address = NatsAddress((server.url,))
        client = await dial(server.url, address, name="test", hooks=Hooks(closed=lost.set))
        reading = client._reading_task

        async def close(*_):
            raise RuntimeError("unable to perform operation: the handler is closed")

        monkeypatch.setattr(client, "_close", close)
        server.kill()
        await within(lost.wait())
        await within(reading)
        monkeypatch.undo()
        await client.discard()


async def test_an_error_while_reading_ends_the_connection_and_its_owner_hears_of_it(tmp_path):
    """nats-py logs such an error, and goes on as if it were connected."""

    def broken(*_message):
        raise RuntimeError("broken")

    lost = asyncio.Event()
    with nats_server(tmp_path) as server:
        client = await dial(
            server.url, NatsAddress((server.url,)), name="test", hooks=Hooks(closed=lost.set)
        )
        await client.subscribe_raw("a", broken)
        await client.publish("a", b"")
        await within(lost.wait())
        assert not client.is_connected
        await client.discard()


async def test_no_socket_is_left_open_by_whom_is_cancelled_while_closing(tmp_path, monkeypatch):
    """A link that is stopped while it closes a connection that was refused."""
    closing = asyncio.Event()

    async def close(*_):
        closing.set()
        await asyncio.Event().wait()

    with nats_server(tmp_path) as server:
        client = await connect_once(NatsAddress((server.url,)), name="test")
        socket = client._transport._io_writer.transport
        monkeypatch.setattr(client, "close", close)
        discard = asyncio.create_task(client.discard())
        await within(closing.wait())
        discard.cancel()
        with pytest.raises(asyncio.CancelledError):
            await discard
        assert socket.is_closing()
