"""The JavaScript client against a real gateway."""

import asyncio
import json
import logging
import os

import nats
import pytest

from gateway.stream.server.roles import Role, url_file
from support.asking import ask_device
from support.conformance import javascript
from support.gateways import fill_calendar, running_gateway, token_for, url_of
from support.stored import read_embedded
from support.waiting import eventually, within
from support.wire import message, raw_device


@pytest.fixture(autouse=True)
def quiet_raw_devices(caplog):
    """Devices that the test makes by hand use a library which logs what they send."""
    caplog.set_level(logging.INFO, "websockets.client")


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Script:
    """The client as a process. Whenever it asks for a token, it gets one once `may_ask` is set."""

    def __init__(self, gateway, box, token, **environment):
        self.may_ask = asyncio.Event()
        self.may_ask.set()
        self.environment = os.environ | {
            "TIDEGATE_URL": url_of(gateway),
            "TIDEGATE_OUTBOX": str(box),
            "TIDEGATE_BACKOFF_SCALE": "0.02",
            **environment,
        }
        self.token = token
        self.events = []
        self.answers = []

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
        await within(self.reading)
        for answer in self.answers:
            answer.cancel()
        await asyncio.gather(*self.answers, return_exceptions=True)
        self.process.stdin.close()

    def named(self, name):
        return [each for each in self.events if each["event"] == name]

    async def _read(self):
        async for line in self.process.stdout:
            event = json.loads(line)
            self.events.append(event)
            if event["event"] == "credential":
                self.answers.append(asyncio.create_task(self._answer()))

    async def _answer(self):
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
            fill_calendar(gateway, 4.0)
            script.may_ask.set()
            await script.send([1])
            await eventually(lambda: holds(gateway, 1))
        assert gateway.metrics.value("tidegate_tickets_total", {"outcome": "honoured"}) == 1


async def test_a_command_is_answered(gateway, tmp_path):
    operator = await nats.connect(url_file(gateway.data_dir, Role.OPERATORS).read_text().strip())
    async with Script(gateway, tmp_path / "box", token_for(gateway, "veh-1")) as script:
        await eventually(lambda: gateway.basis.fleet.find("default", "veh-1"))
        answer = await ask_device(operator, b'{"type":"lock","data":{"doors":4}}')
        entry = b'{"id":"c-1","type":"lock","expires":"2099-01-01T00:00:00Z"}'
        await operator.publish(
            "commands.queue.default.veh-1", entry, headers={"traceparent": TRACE}
        )
        await eventually(lambda: {"event": "commanded", "trace": TRACE} in script.events)
    result = json.loads(answer.data)
    assert (result["ok"], result["data"]) == (True, {"doors": 4})
    await operator.close()


async def test_a_trace_goes_with_each_message_and_its_span_ends_when_it_is_settled(tmp_path):
    settings = {"trace__sample_ratio": 1.0, "limits__message_bytes": 1_000}
    async with running_gateway(tmp_path / "node", **settings) as gateway:
        token = token_for(gateway, "veh-1")
        async with Script(gateway, tmp_path / "box", token, TIDEGATE_TRACE=TRACE) as script:
            await script.tell(do="send", type="t", data=1)
            await script.tell(do="send", type="t", data="x" * 2_000)
            await eventually(lambda: len(script.named("span")) == 2)
        (event,) = await read_embedded(gateway.data_dir)
    assert event.headers["traceparent"][:35] == TRACE[:35]
    assert sorted(str(each["error"]) for each in script.named("span")) == [
        "None",
        "rejected: too_large",
    ]


async def test_without_the_feature_no_trace_is_sent_and_a_span_that_stays_ends_with_the_device(
    gateway, tmp_path
):
    token = token_for(gateway, "veh-1")
    script = Script(gateway, tmp_path / "box", token, TIDEGATE_TRACE=TRACE)
    script.may_ask.clear()
    async with script:
        await script.send([1])
        await eventually(lambda: script.named("queued"))
    (span,) = script.named("span")
    assert "not acknowledged" in span["error"]
    async with Script(gateway, tmp_path / "box", token, TIDEGATE_TRACE=TRACE) as script:
        await script.send([2])
        await eventually(lambda: holds(gateway, 2))
    events = await read_embedded(gateway.data_dir)
    assert not any("traceparent" in event.headers for event in events)


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
