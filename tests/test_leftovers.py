"""No connection leaves a reference cycle, whatever its way in and its end.

Only the cyclic collector finds what is left in cycles, and its passes over all objects cost too
much on a node with a fleet. So everything of a connection must be freed with its last reference.
"""

import asyncio
import gc
import struct

import pytest

from loadtest.devices.wire import masked_frame
from support.gateways import Way, fill_calendar, running_gateway
from support.waiting import eventually, within
from support.wire import knock_bytes, raw_connection

HELLO = masked_frame(1, b'{"hello":{"outbox":"b","oldest":1}}')
MESSAGE = masked_frame(1, b'{"seq":1,"type":"a","data":1}')


class Peer:
    """One connection to the gateway, and what it does with it."""

    def __init__(self, gateway, name, reader, writer):
        self.gateway, self.name, self.reader, self.writer = gateway, name, reader, writer

    def send(self, data):
        self.writer.write(data)

    def knock(self, **options):
        self.send(knock_bytes(self.gateway, self.name, **options))

    async def head(self):
        return await within(self.reader.readuntil(b"\r\n\r\n"))

    async def end(self):
        """Until the gateway ends it, or half of it."""
        try:
            return await within(self.reader.read())
        except ConnectionError:
            return b""

    async def enter(self):
        self.knock()
        assert (await self.head()).startswith(b"HTTP/1.1 101")
        self.send(HELLO)
        await within(self.reader.readuntil(b"}"))

    async def parked(self):
        status = self.gateway.status
        self.knock()
        await eventually(lambda: status()["admission"]["parked"] == 1)


async def nothing_said(peer):
    pass


async def half_a_head(peer):
    peer.send(b"GET /v1/device HTT")


async def rubbish(peer):
    peer.send(b"\x00\xff\r\n\r\n")
    assert (await peer.head()).startswith(b"HTTP/1.1 400")


async def head_too_large(peer):
    peer.send(b"GET /v1/device HTTP/1.1\r\nX: " + b"y" * 9_000)
    await peer.end()


async def head_timeout(peer):
    peer.send(b"GET /v1/device HTT")
    await peer.end()


async def not_a_websocket(peer):
    peer.send(b"GET /v1/device HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await peer.head()).startswith(b"HTTP/1.1 426")


async def not_found(peer):
    peer.knock(path="//[")
    assert (await peer.head()).startswith(b"HTTP/1.1 404")


async def credential_refused(peer):
    token = b"a.b.c"
    head = knock_bytes(peer.gateway, peer.name)
    start = head.index(b"eyJ")
    end = min(head.index(b"\r", start), head.find(b",", start) % len(head))
    peer.send(head[:start] + token + head[end:])
    assert (await peer.head()).startswith(b"HTTP/1.1 401")


async def credential_refused_by_close(peer):
    head = knock_bytes(peer.gateway, peer.name, path="/v1/device?refusal=close")
    start = head.index(b"eyJ")
    peer.send(head[:start] + b"a.b.c" + head[head.index(b"\r", start) :])
    assert (await peer.head()).startswith(b"HTTP/1.1 101")
    await peer.end()


async def entered_and_cut(peer):
    await peer.enter()


async def entered_without_hello(peer):
    peer.knock()
    await peer.head()


async def message_settled(peer):
    await peer.enter()
    peer.send(MESSAGE)
    await within(peer.reader.readuntil(b"}"))


async def message_in_flight(peer):
    await peer.enter()
    peer.send(MESSAGE)


async def closed_by_the_device(peer):
    await peer.enter()
    peer.send(masked_frame(8, struct.pack("!H", 1000)))
    await peer.end()


async def closed_by_the_gateway(peer):
    await peer.enter()
    handler = peer.gateway.basis.fleet.find("default", peer.name)
    handler.leave("drain", 0, "", -1)
    await within(peer.reader.readuntil(b"drain"))
    peer.send(masked_frame(8, struct.pack("!H", 1012)))
    await peer.end()


async def offence(peer):
    await peer.enter()
    peer.send(masked_frame(1, b"{"))
    await within(peer.reader.readuntil(b"json"))


async def framing_broken(peer):
    await peer.enter()
    peer.send(b"\xff\x85abcd")
    await within(peer.reader.readuntil(b"framing"))


async def frame_too_large(peer):
    await peer.enter()
    peer.send(b"\x81\xff" + struct.pack("!Q", 2**40) + bytes(4))
    await within(peer.reader.readuntil(b"size"))


async def half_a_frame(peer):
    await peer.enter()
    peer.send(b"\x81\xfe\x10\x00abcd" + b"x" * 100)


async def half_a_message(peer):
    await peer.enter()
    peer.send(b"\x01\x81" + bytes(4) + b"{")


async def ping_and_cut(peer):
    await peer.enter()
    peer.send(masked_frame(9, b"x"))
    await within(peer.reader.readuntil(b"x"))


async def aborted_by_the_gateway(peer):
    await peer.enter()
    handler = peer.gateway.basis.fleet.find("default", peer.name)
    handler._connection.abort("stopped")
    await peer.end()


async def taken_over(peer):
    await peer.enter()
    async with raw_connection(peer.gateway) as (reader, writer):
        await Peer(peer.gateway, peer.name, reader, writer).enter()
        await within(peer.reader.readuntil(b"taken_over"))


OPEN_DOOR = [
    nothing_said, half_a_head, rubbish, head_too_large, not_a_websocket, not_found,
    credential_refused, credential_refused_by_close, entered_and_cut, entered_without_hello,
    message_settled, message_in_flight, closed_by_the_device, closed_by_the_gateway, offence,
    framing_broken, frame_too_large, half_a_frame, half_a_message, ping_and_cut,
    aborted_by_the_gateway, taken_over,
]  # fmt: skip


async def hung_up_while_parked(peer):
    await peer.parked()


async def early_bytes_while_parked(peer):
    await peer.parked()
    peer.send(b"x")
    await peer.end()


async def replaced_while_parked(peer):
    await peer.parked()
    async with raw_connection(peer.gateway) as (reader, writer):
        newer = Peer(peer.gateway, peer.name, reader, writer)
        newer.knock()
        assert (await peer.head()).startswith(b"HTTP/1.1 503")


async def refused_after_parking(peer):
    await peer.parked()
    gate = peer.gateway.devices.gate
    gate.hold()
    peer.gateway.admission.desk.release()
    assert (await peer.head()).startswith(b"HTTP/1.1 503")


BUSY_DOOR = [
    hung_up_while_parked, early_bytes_while_parked, replaced_while_parked, refused_after_parking,
]  # fmt: skip


async def told_a_slot(peer):
    peer.knock()
    assert (await peer.head()).startswith(b"HTTP/1.1 503")


async def told_a_slot_by_close(peer):
    peer.knock(path="/v1/device?refusal=close")
    assert (await peer.head()).startswith(b"HTTP/1.1 101")
    await peer.end()


FULL_DOOR = [told_a_slot, told_a_slot_by_close]


@pytest.fixture
def quiet_collector():
    """What was there before is kept out of the passes: each takes as long as there are objects."""
    gc.collect()
    gc.disable()
    gc.freeze()
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.unfreeze()
    gc.enable()


ROOMS = ("gateway.", "websockets.", "uvloop.")


def belongs_to_a_gateway(thing):
    """Its type is one of the rooms'; or it is code of theirs that was running."""
    for code in ("gi_code", "cr_code", "f_code"):
        if hasattr(thing, code):
            return any(f"/{room[:-1]}/" in getattr(thing, code).co_filename for room in ROOMS)
    return type(thing).__module__.startswith(ROOMS)


def in_cycles():
    """What the collector finds of a gateway's. The clients of these tests use none of its parts."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    found, _ = list(gc.garbage), gc.garbage.clear()
    return sorted(
        f"{type(each).__module__}.{getattr(each, '__qualname__', type(each).__qualname__)}"
        for each in found
        if belongs_to_a_gateway(each)
    )


async def left_by(gateway, endings, lead_s=0.0):
    """What connections of each ending leave in cycles, with the next free slot so far ahead."""
    left = {}
    for ending in endings:

        async def come_and_go(name, ending=ending):
            if lead_s:
                fill_calendar(gateway, lead_s)
            async with raw_connection(gateway) as (reader, writer):
                await ending(Peer(gateway, name, reader, writer))
            await eventually(lambda: len(gateway.devices.gate) == 0, ending.__name__)
            await eventually(lambda: len(gateway.basis.fleet) == 0, ending.__name__)
            publisher = gateway.storage.publisher
            await eventually(lambda: publisher.pending_messages == 0, ending.__name__)

        await come_and_go(f"{ending.__name__}-0")  # what is made once
        in_cycles()
        for number in range(1, 4):
            await come_and_go(f"{ending.__name__}-{number}")
        found = in_cycles()
        if found:
            left[ending.__name__] = found
    return left


each_way = pytest.mark.parametrize(
    "way",
    [Way(), Way(tls=True, subprotocol=True)]
    + [pytest.param(way, marks=pytest.mark.long) for way in (Way(tls=True), Way(subprotocol=True))],
    ids=str,
)


@each_way
async def test_no_ending_leaves_a_cycle(tmp_path, way, quiet_collector):
    settings = {
        "admission__burst": 1,
        "admission__rate_per_s": 100_000,
        "admission__park_ms": 9_000,
    }
    async with running_gateway(tmp_path, way=way, **settings) as gateway:
        assert await left_by(gateway, OPEN_DOOR) == {}
        assert await left_by(gateway, BUSY_DOOR, lead_s=8.0) == {}
        assert await left_by(gateway, FULL_DOOR, lead_s=60.0) == {}


@each_way
async def test_a_head_that_does_not_come_leaves_no_cycle(tmp_path, way, quiet_collector):
    async with running_gateway(tmp_path, way=way, limits__head_timeout_ms=100) as gateway:
        assert await left_by(gateway, [head_timeout]) == {}


async def test_tls_that_comes_to_nothing_leaves_no_cycle(tmp_path, quiet_collector):
    async with running_gateway(tmp_path, way=Way(tls=True)) as gateway:

        async def plain_text(reader, writer):
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await within(reader.read())

        async def cut(reader, writer):
            writer.write(b"\x16\x03\x01\x02\x00\x01")

        for act in (plain_text, cut):
            for number in range(4):
                reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
                await act(reader, writer)
                writer.transport.abort()
                await eventually(lambda: not gateway.devices.port.listener.opening)
                if number == 0:
                    in_cycles()
            assert in_cycles() == []
