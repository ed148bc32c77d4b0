"""The JavaScript client against a real gateway."""

import asyncio
import contextlib
import json
import logging
import os

import nats
import pytest
from websockets.exceptions import InvalidStatus

from gateway.stream.nats_server import url_file
from gateway.stream.rights import Role
from support.asking import ask_device
from support.conformance import javascript
from support.gateways import running_gateway, token_for, url_of
from support.stored import read_embedded
from support.waiting import eventually, within
from support.wire import message, raw_device


@pytest.fixture(autouse=True)
def quiet_raw_devices(caplog):
    """Devices that the test makes by hand use a library which logs what they send."""
    caplog.set_level(logging.INFO, "websockets.client")


class Script:
    """The client as a process. Whenever it asks for a token, it gets one once `may_ask` is set."""

    def __init__(self, gateway, box, token):
        self.may_ask = asyncio.Event()
        self.may_ask.set()
        self.environment = os.environ | {
            "TIDEGATE_URL": url_of(gateway),
            "TIDEGATE_OUTBOX": str(box),
            "TIDEGATE_BACKOFF_SCALE": "0.02",
        }
        self.token = token
        self.events = []

    async def __aenter__(self):
        self.process = await asyncio.create_subprocess_exec(
            *javascript(),
            env=self.environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self.reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_exc):
        await self.tell(do="stop")
        assert await within(self.process.wait()) == 0
        self.reading.cancel()
        await asyncio.gather(self.reading, return_exceptions=True)
        self.process.stdin.close()

    async def _read(self):
        async for line in self.process.stdout:
            event = json.loads(line)
            self.events.append(event)
            if event["event"] == "credential":
                await self.may_ask.wait()
                await self.tell(do="credential", token=self.token)

    async def tell(self, **order):
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        await self.process.stdin.drain()

    async def send(self, numbers):
        for n in numbers:
            await self.tell(do="send", type="t", data=n)


async def stored(gateway):
    return [json.loads(each.data) for each in await read_embedded(gateway.data_dir)]


async def holds(gateway, count):
    return len(await stored(gateway)) == count


async def test_messages_are_stored_once_and_in_order_over_two_starts(gateway, tmp_path):
    token = token_for(gateway, "veh-1")
    for first in (0, 100):
        async with Script(gateway, tmp_path / "box", token) as script:
            await script.send(range(first, first + 100))
            await eventually(lambda count=first + 100: holds(gateway, count))
    assert await stored(gateway) == list(range(200))


async def test_a_refused_client_connects_in_its_slot_with_its_ticket(tmp_path):
    settings = {
        "admission__rate_per_s": 2.0,
        "admission__rate_floor_per_s": 2.0,
        "admission__burst": 1,
        "admission__park_ms": 0,
    }
    async with running_gateway(tmp_path / "data", **settings) as gateway:
        script = Script(gateway, tmp_path / "box", token_for(gateway, "veh-1"))
        script.may_ask.clear()
        async with script:
            await eventually(lambda: {"event": "credential"} in script.events)
            for number in range(6):
                with contextlib.suppress(InvalidStatus):
                    async with raw_device(gateway, f"filler-{number}"):
                        pass
            script.may_ask.set()
            await script.send([1])
            await eventually(lambda: holds(gateway, 1))
        assert gateway.metrics.value("tidegate_tickets_total", {"outcome": "honoured"}) == 1


async def test_a_command_is_answered(gateway, tmp_path):
    operator = await nats.connect(url_file(gateway.data_dir, Role.OPERATORS).read_text().strip())
    async with Script(gateway, tmp_path / "box", token_for(gateway, "veh-1")):
        await eventually(lambda: gateway.basis.fleet.find("default", "veh-1"))
        answer = await ask_device(operator, b'{"type":"lock","data":{"doors":4}}')
    result = json.loads(answer.data)
    assert (result["ok"], result["data"]) == (True, {"doors": 4})
    await operator.close()


async def test_it_stops_while_its_issuer_does_not_answer(gateway, tmp_path):
    script = Script(gateway, tmp_path / "box", "")
    script.may_ask.clear()
    async with script:
        await eventually(lambda: {"event": "credential"} in script.events)


@pytest.mark.parametrize("origin", ["https://page.example", "null"])
async def test_no_origin_is_refused(gateway, origin):
    async with raw_device(gateway, "veh-1", origin=origin) as device:
        await device.say(message(1))
        await device.hear_ack(1)
