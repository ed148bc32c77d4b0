"""Frames on a connection: what comes back, and what each offence closes it with."""

import asyncio
import struct

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

from support.echo_connections import masked, wire
from support.waiting import eventually, within


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 200_000])
async def test_text_of_every_length_form_comes_back(serve, size):
    rig = await serve()
    async with connect(rig.url, proxy=None, compression=None) as client:
        await client.send("x" * size)
        assert await within(client.recv()) == "x" * size


async def test_fragments_pings_and_byte_by_byte_delivery(serve):
    rig = await serve()
    async with wire(rig) as raw:
        stream = (
            masked(1, b"he", fin=False)
            + masked(9, b"ping")
            + masked(0, b"ll", fin=False)
            + masked(0, b"o")
        )
        for number in range(len(stream)):
            raw.send(stream[number : number + 1])
            await asyncio.sleep(0)
        assert await raw.frame() == (10, b"ping")
        assert await raw.frame() == (1, b"hello")


@pytest.mark.parametrize(
    ("data", "code", "cause"),
    [
        (b"\x81\x05hello", 1002, "framing"),  # not masked
        (masked(1, b"x", rsv=4), 1002, "framing"),  # RSV1 without compression
        (masked(1, b"x", rsv=2), 1002, "framing"),
        (masked(1, b"x", rsv=1), 1002, "framing"),
        (masked(3, b"x"), 1002, "framing"),  # reserved opcodes
        (masked(11, b""), 1002, "framing"),
        (masked(0, b"x"), 1002, "framing"),  # continues nothing
        (masked(1, b"x", fin=False) + masked(1, b"y"), 1002, "framing"),  # starts within another
        (masked(9, b"x" * 126), 1002, "framing"),  # a long ping
        (masked(9, b"x", fin=False), 1002, "framing"),  # a ping in pieces
        (masked(8, b"x"), 1002, "framing"),  # a close of one byte
        (masked(8, struct.pack("!H", 1005)), 1002, "framing"),  # a close code that no peer may send
        (masked(1, b"\xff"), 1007, "utf8"),
        (masked(1, b"\xc3", fin=False) + masked(0, b"\x28"), 1007, "utf8"),
        (masked(1, size=1_000_000), 1009, "size"),
        (masked(1, size=2**40), 1009, "size"),  # 64-bit lengths
        (masked(1, size=2**62), 1009, "size"),
        (masked(1, b"x" * 700, fin=False) + masked(0, b"x" * 700), 1009, "size"),
        (masked(1, b"", fin=False) + masked(0, b"", fin=False) * 20, 1008, "fragments"),
    ],
)
async def test_each_framing_offence_has_its_close_code(serve, data, code, cause):
    rig = await serve(frame_bytes_max=1_024, fragments_max=16)
    async with connect(rig.url, proxy=None, compression=None) as bystander, wire(rig) as raw:
        raw.send(data)
        assert await raw.close_code() == code
        raw.writer.write_eof()
        assert await raw.end() == b""
        await eventually(lambda: rig.causes == [cause])
        await bystander.send("still here")
        assert await within(bystander.recv()) == "still here"


async def test_a_length_of_64_bits_with_the_highest_set(serve):
    rig = await serve()
    async with wire(rig) as raw:
        raw.send(b"\x81\xff" + b"\xff" * 8 + bytes(4))
        assert await raw.close_code() in (1002, 1009)


async def test_a_compression_bomb_is_stopped_by_its_inflated_size(serve):
    factory = ServerPerMessageDeflateFactory(
        server_max_window_bits=11, client_max_window_bits=11, require_client_max_window_bits=True
    )
    rig = await serve([factory], frame_bytes_max=65_536)
    async with connect(rig.url, proxy=None, compression="deflate") as client:
        await client.send("x" * 60_000)
        assert len(await within(client.recv())) == 60_000
        await client.send("x" * 50_000_000)
        with pytest.raises(ConnectionClosed) as caught:
            await within(client.recv())
    assert caught.value.rcvd.code == 1009
    await eventually(lambda: rig.causes == ["size"])


async def test_binary_goes_to_the_handler(serve):
    rig = await serve()
    async with connect(rig.url, proxy=None, compression=None) as client:
        await client.send(b"\x00\xff")
        await eventually(lambda: rig.binary == [b"\x00\xff"])
