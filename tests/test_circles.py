"""A rule commands a device, and the device reacts with an event that the rule matches again."""

import pytest

from gateway.consumers.sink import State
from support.eventstream import letters, linked
from support.gateways import running_gateway
from support.rule_streams import rule
from support.rules import runner_of, running
from support.servers import nats_server
from support.stored import read_stream
from support.waiting import eventually
from support.wire import message, raw_device

HOPS = 8
MINUTE_MS = 60_000


async def react(device, first, rounds):
    """The device answers each command and sends an event of the same type."""
    for seq in range(first, first + rounds):
        command = await device.hear_named("command")
        await device.say({"result": {"id": command["id"], "ok": True, "data": None}})
        await device.say(message(seq))


@pytest.mark.parametrize("chain_ms", [MINUTE_MS, 0])
async def test_the_eighth_hop_of_a_circle_through_a_device_is_a_dead_letter(tmp_path, chain_ms):
    charge = rule(to="command:charge", when={"type": ["battery.low"]})
    with nats_server(tmp_path / "nats") as server:
        settings = {"nats__urls": (server.url,), "session__command_chain_ms": chain_ms}
        async with (
            running_gateway(tmp_path / "gateway", **settings) as gateway,
            raw_device(gateway, "veh-1") as device,
            linked(server) as link,
        ):
            runner = runner_of(link, charge)
            async with running(runner):
                await eventually(lambda: runner.state is State.RUNNING)
                await device.say(message(1))
                await react(device, 2, HOPS - 1)
                if chain_ms:
                    ((_, headers, _),) = await eventually(lambda: letters(server))
                    assert headers["Tidegate-Error"] == "hops"
                else:  # nothing is remembered: the device is commanded on and on
                    await react(device, HOPS + 1, 1)
        stored = await read_stream(server.url)
    counts = [int(each.headers.get("Tidegate-Hops", 0)) for each in stored]
    assert counts == (list(range(HOPS)) if chain_ms else [0] * (HOPS + 1))
