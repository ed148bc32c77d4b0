"""The outbox of a device: its bounds, and what a kill or a cancellation leaves in it."""

import asyncio
import json
import sys
import threading

import pytest

from support.children import spawned
from support.devices import QUICK, device_of
from support.gateways import token_for, url_of
from support.stored import by_device, read_embedded
from support.waiting import within
from tidegate import Device, OutboxError, OutboxFull, OutboxLimits
from tidegate.outbox import Entry


async def test_an_outbox_in_use_is_an_error(gateway, tmp_path, monkeypatch):
    monkeypatch.setattr("tidegate.outbox_file._BUSY_TIMEOUT_S", 0.05)
    async with device_of(gateway, tmp_path):
        with pytest.raises(OutboxError):
            async with device_of(gateway, tmp_path):
                pass


PRODUCER = """
import asyncio, sys, json
from tidegate import BackoffSettings, Device
async def main():
    url, token, box = sys.argv[1:]
    backoff = BackoffSettings(first_retry_ms=20, base_ms=10, cap_ms=100, stable_ms=1000)
    async with Device(url, token, outbox=box, backoff=backoff) as device:
        while True:
            seqs = await asyncio.gather(*(device.send("t", {"x": n}) for n in range(20)))
            print(json.dumps(max(seqs)), flush=True)
asyncio.run(main())
"""


async def test_kill_9_of_the_client_loses_nothing_and_stores_nothing_twice(gateway, tmp_path):
    token, box = token_for(gateway, "veh-1"), tmp_path / "box"
    last = 0
    for _ in range(4):
        command = [sys.executable, "-c", PRODUCER, url_of(gateway), token, str(box)]
        with spawned(command) as producer:
            for _ in range(8):
                last = json.loads(await asyncio.to_thread(producer.stdout.readline))
            producer.kill()
    async with Device(url_of(gateway), token, outbox=box, backoff=QUICK) as device:
        final = await device.send("t", "end")
        await within(device.flush())
    assert final > last
    stored = by_device(await read_embedded(gateway.data_dir)).values()
    assert all(seqs == list(range(1, len(seqs) + 1)) for seqs in stored)
    assert sum(map(len, stored)) == final, "each number once"
    assert len(stored) == 5, "each opening has its own outbox id"


async def test_messages_dropped_before_they_were_sent_cost_only_a_further_hello(gateway, tmp_path):
    async with device_of(gateway, tmp_path) as device:
        await within(device.connected.wait())

        def ten_arrive_and_five_are_dropped():
            outbox = device._gear.store.outbox
            outbox.append([Entry("t", b"1", None)] * 10)
            with outbox._ledger.changing():
                outbox._ledger.drop(0, 5)

        await device._gear.store._call(ten_arrive_and_five_are_dropped)
        await device.send("t", "last")
        await within(device.flush())
        assert device.knocks.knocks == 1
    stored = by_device(await read_embedded(gateway.data_dir))
    assert list(stored.values()) == [list(range(1, 7))], "numbered anew: they were never sent"


async def test_a_bound_holds_for_each_of_many_concurrent_sends(tmp_path):
    limits = OutboxLimits(messages_max=10)
    async with Device("ws://127.0.0.1:1/", "t", outbox=tmp_path / "o", limits=limits) as device:
        for n in range(5):
            await device.send("t", n)
        results = await asyncio.gather(
            *(device.send("t", n) for n in range(6)), return_exceptions=True
        )
        assert results[:5] == [6, 7, 8, 9, 10]
        assert isinstance(results[5], OutboxFull)
        assert (device.pending, device.dropped) == (10, 0)


async def test_dropping_the_oldest_holds_for_many_concurrent_sends(tmp_path):
    limits = OutboxLimits(messages_max=10, when_full="drop_oldest")
    async with Device("ws://127.0.0.1:1/", "t", outbox=tmp_path / "o", limits=limits) as device:
        await asyncio.gather(*(device.send("t", n) for n in range(500)))
        assert device.pending <= 10
        assert device.pending + device.dropped == 500


async def test_a_cancelled_entering_leaves_the_outbox_free(tmp_path, monkeypatch):
    from tidegate.outbox_file import OutboxFile

    reached, go_on = threading.Event(), threading.Event()
    opened = OutboxFile._open

    def slowly(*arguments):
        opened(*arguments)
        reached.set()
        go_on.wait(30)

    monkeypatch.setattr(OutboxFile, "_open", slowly)
    device = Device("ws://127.0.0.1:1/", "t", outbox=tmp_path / "o")
    entering = asyncio.create_task(device.__aenter__())
    await asyncio.to_thread(reached.wait, 30)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    monkeypatch.undo()
    go_on.set()
    async with Device("ws://127.0.0.1:1/", "t", outbox=tmp_path / "o") as again:
        assert await again.send("t", 1) == 1


async def test_a_full_outbox_refuses_a_send(tmp_path):
    limits = OutboxLimits(messages_max=2)
    async with Device("ws://127.0.0.1:1/", "t", outbox=tmp_path / "o", limits=limits) as device:
        await device.send("t", 1)
        await device.send("t", 2)
        with pytest.raises(OutboxFull):
            await device.send("t", 3)
        assert (device.pending, device.outbox_bytes, device.dropped) == (2, 2, 0)
