"""The last release against today's code, both ways: a rollout has both at once."""

import asyncio
import json
from collections import Counter

import pytest

from support.gateways import token_for, url_of
from support.processes import GatewayProcess
from support.release import export_last_release, run_released
from support.stored import read_embedded
from support.waiting import within
from tidegate import BackoffSettings, Device
from tidegate.outbox import Outbox

QUICK = BackoffSettings(first_retry_ms=20, base_ms=10, cap_ms=100, stable_ms=1_000)

OLD_DEVICE = """
import asyncio, sys
import clients
from clients import BackoffSettings, Device
url, token, box, first, last, flush = sys.argv[1:]
async def main():
    quick = BackoffSettings(first_retry_ms=20, base_ms=10, cap_ms=100, stable_ms=1000)
    async with Device(url, token, outbox=box, backoff=quick) as device:
        await asyncio.gather(*(device.send("t", n) for n in range(int(first), int(last))))
        if flush == "flush":
            await asyncio.wait_for(device.flush(), 60)
assert "features" not in open(clients.__file__.replace("__init__", "session")).read()
asyncio.run(main())
"""

OLD_MINT = """
import sys
from pathlib import Path
from gateway import development
print(development.mint(Path(sys.argv[1]), "veh-1", lifetime_s=600, claims={}))
"""

OLD_TAIL = """
import sys
from gateway.cli import main
sys.argv = ["tidegate", "tail", "--since", "all", "--no-follow", "--data-dir", sys.argv[1]]
main()
"""


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    return export_last_release(tmp_path_factory.mktemp("released"))


@pytest.fixture
def old_gateway(released, tmp_path):
    gateway = GatewayProcess(tmp_path / "old", source=released)
    gateway.start()
    yield gateway
    gateway.stop()


async def test_the_last_client_talks_to_this_gateway(gateway, released, tmp_path):
    url, token, box = url_of(gateway), token_for(gateway, "veh-1"), str(tmp_path / "box")
    offline = "ws://127.0.0.1:1/v1/device"
    run = asyncio.to_thread
    await run(run_released, released, OLD_DEVICE, url, token, box, "0", "300", "flush")
    await run(run_released, released, OLD_DEVICE, offline, token, box, "300", "320", "leave")
    await run(run_released, released, OLD_DEVICE, url, token, box, "320", "400", "flush")
    stored = await read_embedded(gateway.data_dir)
    assert [each.data for each in stored] == [b"%d" % n for n in range(400)]


async def test_this_client_continues_with_a_file_of_the_last_release(gateway, released, tmp_path):
    token, box = token_for(gateway, "veh-1"), str(tmp_path / "box")
    offline = "ws://127.0.0.1:1/v1/device"
    await asyncio.to_thread(
        run_released, released, OLD_DEVICE, offline, token, box, "0", "50", "leave"
    )
    async with Device(url_of(gateway), token, outbox=box, backoff=QUICK) as device:
        assert device.pending == 50
        for n in range(50, 60):
            await device.send("t", n)
        await within(device.flush())
    stored = await read_embedded(gateway.data_dir)
    assert [each.data for each in stored] == [b"%d" % n for n in range(60)]
    assert len({each.outbox for each in stored}) == 2


async def test_this_client_talks_to_the_last_gateway(old_gateway, released, tmp_path):
    token = run_released(released, OLD_MINT, str(old_gateway.data_dir)).strip()
    box = tmp_path / "box"
    for first in range(0, 60, 20):  # two openings offline: three outbox ids in one file
        async with Device("ws://127.0.0.1:1/v1/device", token, outbox=box) as device:
            for n in range(first, first + 20):
                await device.send("t", n)
    async with Device(old_gateway.url, token, outbox=box, backoff=QUICK) as device:
        for n in range(60, 80):
            await device.send("t", n)
        await within(device.flush())
    assert _stored(released, old_gateway) == list(range(80))


async def test_a_client_that_has_met_newer_gateways_works_with_the_last_release(
    gateway, old_gateway, released, tmp_path
):
    box = tmp_path / "box"
    async with Device(
        url_of(gateway), token_for(gateway, "veh-1"), outbox=box, backoff=QUICK
    ) as device:
        await device.send("t", "new")
        await within(device.flush())
    outbox = Outbox(box)
    outbox.remember_features(True)
    outbox.close()
    token = run_released(released, OLD_MINT, str(old_gateway.data_dir)).strip()
    async with Device(old_gateway.url, token, outbox=box, backoff=QUICK) as device:
        for n in range(10):
            await device.send("t", n)
        await within(device.flush())
        assert device.knocks.knocks <= 3
    assert _stored(released, old_gateway) == list(range(10))


def _stored(released, gateway):
    """The data of every event, each of which must be there once."""
    lines = run_released(released, OLD_TAIL, str(gateway.data_dir)).splitlines()
    data = [json.loads(line)["data"] for line in lines]
    assert max(Counter(map(str, data)).values()) == 1
    return data
