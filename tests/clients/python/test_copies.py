"""Restored copies of outbox files, and bounds under load, against a real gateway."""

import asyncio
import json
import random
import shutil

import pytest

from support.gateways import token_for, url_of
from support.stored import by_device, read_embedded
from support.waiting import within
from tidegate import BackoffSettings, Device, OutboxError, OutboxLimits

QUICK = BackoffSettings(first_retry_ms=20, base_ms=10, cap_ms=100, stable_ms=1_000)
NOWHERE = "ws://127.0.0.1:1/v1/device"


def device_on(gateway, path, url=None, **options):
    return Device(
        url or url_of(gateway), token_for(gateway, "veh-1"), outbox=path, backoff=QUICK, **options
    )


async def stored_data(gateway):
    return [json.loads(each.data) for each in await read_embedded(gateway.data_dir)]


async def test_an_older_copy_of_the_file_loses_no_message(gateway, tmp_path):
    """Acknowledged messages are stored, however often an older copy of the file is restored."""
    sent = []

    async def run(tag, count):
        async with device_on(gateway, tmp_path / "box") as device:
            for n in range(count):
                sent.append(f"{tag}-{n}")
                await device.send("t", sent[-1])
            await within(device.flush())

    await run("first", 5)
    shutil.copy(tmp_path / "box", tmp_path / "copy")
    for tag in ("second", "third", "fourth"):
        await run(tag, 10)
        shutil.copy(tmp_path / "copy", tmp_path / "box")
    assert sorted(await stored_data(gateway)) == sorted(sent)


@pytest.mark.parametrize("seed", range(3))
async def test_restored_copies_with_messages_store_every_message_once(gateway, tmp_path, seed):
    """The messages of a copy are sent again under their old names, so they are stored once."""
    rng = random.Random(seed)
    box, copy = tmp_path / "box", tmp_path / "copy"
    sent = 0
    for _ in range(8):
        online = rng.random() < 0.6
        async with device_on(gateway, box, None if online else NOWHERE) as device:
            for _ in range(rng.randint(0, 12)):
                await device.send("t", sent)
                sent += 1
            if online:
                await within(device.flush())
        if rng.random() < 0.5:
            shutil.copy(box, copy)
        elif copy.exists():
            # Only acknowledged messages are promised, so acknowledge all before the copy replaces
            # the file.
            async with device_on(gateway, box) as device:
                await within(device.flush())
            shutil.copy(copy, box)
    async with device_on(gateway, box) as device:
        await within(device.flush())
    assert sorted(await stored_data(gateway)) == list(range(sent))


async def test_dropping_while_sending_leaves_no_hole_on_the_wire(gateway, tmp_path):
    limits = OutboxLimits(messages_max=20, when_full="drop_oldest")
    async with device_on(gateway, tmp_path / "box", limits=limits) as device:
        await within(device.connected.wait())
        for burst in range(0, 2_000, 40):
            await asyncio.gather(*(device.send("t", burst + n) for n in range(40)))
            assert device.pending <= 20
        await within(device.flush())
        dropped = device.dropped
    stored = await read_embedded(gateway.data_dir)
    data = [json.loads(each.data) for each in stored]
    assert data == sorted(set(data)), "in order, once"
    assert data[-1] == 1_999
    assert dropped > 0
    assert len(data) + dropped >= 2_000, "what is neither stored nor counted is lost"
    for seqs in by_device(stored).values():
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))


async def test_a_send_to_a_removed_file_raises_an_error(gateway, tmp_path):
    async with device_on(gateway, tmp_path / "box") as device:
        await device.send("t", 1)
        await within(device.flush())
        (tmp_path / "box").unlink()
        with pytest.raises(OutboxError, match="box was removed"):
            await device.send("t", 2)
