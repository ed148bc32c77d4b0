"""A connection once it is open: keepalive, slow readers, closes, pauses."""

import asyncio
import struct

import pytest
from websockets.asyncio.client import connect

from support.echo_connections import masked, wire
from support.waiting import eventually, within


async def test_a_half_open_peer_is_found_and_dropped(serve):
    rig = await serve(keepalive_interval_s=0.05, keepalive_timeout_s=0.05)
    async with wire(rig) as raw:
        assert await raw.frame() == (9, b"")  # and never a pong
        assert await raw.end() == b""
    await eventually(lambda: rig.causes == ["half_open"])


async def test_a_living_peer_is_pinged_again_and_again(serve):
    rig = await serve(keepalive_interval_s=0.5, keepalive_timeout_s=0.5)
    async with connect(rig.url, proxy=None, ping_interval=None, compression=None) as client:
        await eventually(lambda: rig.keepalives >= 3)
        await client.send("x")
        assert await within(client.recv()) == "x"
    await eventually(lambda: rig.causes == ["device"])


async def test_a_peer_that_never_reads_is_dropped(serve):
    rig = await serve(write_buffer_bytes_max=1_000, slow_reader_timeout_s=0.05)
    async with wire(rig) as raw:
        (echo,) = rig.opened
        raw.reader._transport.pause_reading()
        while echo.connection.is_open and not rig.causes:
            echo.connection.send_text(b"x" * 60_000)
            await asyncio.sleep(0.001)
        await eventually(lambda: rig.causes == ["slow_reader"])


async def test_a_close_that_is_not_answered_ends_at_its_timeout(serve):
    rig = await serve(close_timeout_s=0.05)
    async with wire(rig) as raw:
        (echo,) = rig.opened
        echo.connection.close(1000, "", "done")
        assert await raw.close_code() == 1000
        assert await raw.end() == b""
    await eventually(lambda: rig.causes == ["done"])


@pytest.mark.parametrize(
    "behind", [masked(3), masked(8, struct.pack("!H", 1000)), b"\x81\x05hello"]
)
async def test_a_message_right_before_the_end_is_delivered(serve, behind):
    rig = await serve()
    async with wire(rig) as raw:
        raw.send(masked(1, b"last words") + behind)
        assert await raw.close_code() in (1000, 1002)


async def test_a_close_between_fragments_is_a_close(serve):
    rig = await serve()
    async with wire(rig) as raw:
        raw.send(masked(1, b"x", fin=False) + masked(8, struct.pack("!H", 1000)) + masked(0, b"y"))
        assert await raw.close_code() == 1000
    await eventually(lambda: rig.causes == ["device"])


async def test_nothing_is_sent_after_a_close(serve):
    rig = await serve()
    async with wire(rig) as raw:
        (echo,) = rig.opened
        echo.connection.close(1000, "", "done")
        echo.connection.send_text(b"late")
        echo.connection.close(1001, "", "again")
        assert await raw.close_code() == 1000
        raw.send(masked(8, struct.pack("!H", 1000)))
        assert await raw.end() == b""


async def test_the_handlers_own_deadline(serve):
    rig = await serve()
    async with wire(rig):
        (echo,) = rig.opened
        echo.deadline = asyncio.get_running_loop().time() + 0.02
        echo.connection.touch()
        await eventually(lambda: rig.deadlines)


async def test_a_paused_connection_is_not_read(serve):
    rig = await serve()
    async with connect(rig.url, proxy=None, compression=None) as client:
        await client.send("1")
        assert await within(client.recv()) == "1"
        (echo,) = rig.opened
        echo.connection.pause_reading(2)
        echo.connection.pause_reading(4)
        await client.send("2")
        echo.connection.resume_reading(2)
        pending = asyncio.create_task(client.recv())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not pending.done()
        echo.connection.resume_reading(4)
        assert await within(pending) == "2"
