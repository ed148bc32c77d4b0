"""The cyclic collector set aside, and connections that leave it nothing to do."""

import asyncio
import gc
import weakref

import pytest
from support.gateways import token_for
from support.waiting import eventually

from gateway.collector import CalmCollector
from loadtest.wire import handshake_request, masked_frame


class Knot:
    def __init__(self):
        self.itself = self


@pytest.fixture
def collector():
    made = CalmCollector(full_every_s=0.01)
    made.start()
    yield made
    made.stop()


def test_survivors_of_a_young_pass_are_never_visited_again(collector):
    before = gc.get_freeze_count()
    kept = [[] for _ in range(10_000)]
    assert gc.get_freeze_count() > before + 5_000
    assert len(gc.get_objects(generation=1)) + len(gc.get_objects(generation=2)) == 0
    assert kept


async def test_a_full_pass_finds_what_leaked_into_a_cycle(collector):
    knots = [Knot() for _ in range(10_000)]
    gc.freeze()  # none of them is found by a pass over the young
    gone = [weakref.ref(knot) for knot in knots]
    del knots
    gc.collect()
    assert gone[0]() is not None
    running = asyncio.create_task(collector.run())
    await eventually(lambda: all(ref() is None for ref in gone))
    running.cancel()


def test_stopped_it_leaves_things_as_they_were():
    before = gc.get_threshold(), list(gc.callbacks)
    collector = CalmCollector()
    collector.start()
    assert gc.get_threshold() != before[0]
    collector.stop()
    collector.stop()
    assert (gc.get_threshold(), list(gc.callbacks)) == before
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize("parting", ["cut", "close"])
async def test_a_connection_leaves_no_cycle(gateway, parting):
    async def come_and_go(name):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(handshake_request(token_for(gateway, name).encode()))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(masked_frame(1, b'{"hello":{"outbox":"b","oldest":1}}'))
        await reader.readuntil(b"}")
        writer.write(masked_frame(1, b'{"seq":1,"type":"a","data":1}'))
        await reader.readuntil(b"}")
        if parting == "close":
            writer.write(masked_frame(8, b"\x03\xe8"))
            await reader.read()
        writer.close()
        await writer.wait_closed()

    async def all_gone():
        await eventually(lambda: gateway.status()["connections"] == 0)
        await eventually(lambda: gateway.status()["devices"] == 0)

    await come_and_go("veh-0")  # what is made once
    await all_gone()
    gc.collect()
    gc.disable()
    try:
        for number in range(20):
            await come_and_go(f"veh-{number}")
        await all_gone()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        ours = [each for each in gc.garbage if type(each).__module__.startswith("gateway.")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert ours == []
