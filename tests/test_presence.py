"""What a node says about the presence of its devices: through a real gateway and nats-server."""

import asyncio

from gateway import development
from gateway.admission.revocation import Revocation
from gateway.stream.server.roles import Role, url_file
from support.gateways import running_gateway, token_for
from support.presence import presence, states_in, truth_of
from support.processes import GatewayProcess
from support.waiting import eventually
from support.wire import message, raw_device

QUICK = {"presence__linger_ms": 0}


def nats_of(gateway):
    return url_file(gateway.data_dir, Role.OPERATORS).read_text().strip()


async def facts_when(gateway, count, device=None):
    """The facts, once there are so many."""
    found = []

    async def there():
        found[:] = await presence(nats_of(gateway), device)
        return len(found) >= count

    await eventually(there, f"{count} facts")
    return found


async def test_a_device_comes_and_goes(tmp_path):
    async with running_gateway(tmp_path, **QUICK) as gateway:
        async with raw_device(gateway, token=token_for(gateway, "veh-1", group="depot")) as device:
            session = device.welcome["session"]
            (came,) = await facts_when(gateway, 1)
        facts = await facts_when(gateway, 2)
    assert came == {
        "device": "veh-1",
        "online": True,
        "session": session,
        "fence": came["fence"],
        "cause": "connected",
        "node": gateway.basis.node,
        "time": came["time"],
        "group": "depot",
    }
    assert states_in(facts) == [(True, "connected"), (False, "closed 1000")]
    assert facts[1]["fence"] == came["fence"]


async def test_the_cause_says_why_a_session_ended(tmp_path):
    async with running_gateway(tmp_path, **QUICK) as gateway:
        async with raw_device(gateway, "veh-1") as device:
            await device.say({"seq": 9, "type": "t", "data": 1})  # a gap
            await device.closed()
        async with raw_device(gateway, "veh-2") as device:
            await gateway.operators.revocations.spread(
                Revocation(2**40, tenant="default", device="veh-2")
            )
            await device.closed()
        async with raw_device(gateway, "veh-3") as device:
            device.connection.transport.abort()
            facts = await facts_when(gateway, 6)
    causes = {name: fact["cause"] for name, fact in truth_of(facts).items()}
    assert causes == {"veh-1": "closed 1008", "veh-2": "revoked", "veh-3": "lost"}


async def test_a_takeover_on_the_same_node_ends_the_older_session_first(tmp_path):
    async with running_gateway(tmp_path, **QUICK) as gateway:
        async with raw_device(gateway, "veh-1") as first, raw_device(gateway, "veh-1"):
            await first.closed()
            facts = await facts_when(gateway, 3)
    assert states_in(facts) == [(True, "connected"), (False, "taken_over"), (True, "connected")]
    assert facts[1]["fence"] < facts[2]["fence"]


async def test_a_node_that_stops_says_so_of_its_devices(tmp_path):
    async with running_gateway(tmp_path, presence__linger_ms=2_000) as gateway:
        async with raw_device(gateway, "veh-1"), raw_device(gateway, "veh-2"):
            await gateway.stop()
    async with running_gateway(tmp_path) as again:
        facts = await facts_when(again, 4)
    assert {fact["cause"] for fact in truth_of(facts).values()} == {"drained"}


async def test_a_node_that_was_killed_says_so_of_itself_at_its_next_start(tmp_path):
    node = GatewayProcess(tmp_path, PRESENCE__LINGER_MS="0")
    await asyncio.to_thread(node.start)
    try:

        def device(name):
            token = development.mint(node.data_dir, name, lifetime_s=600, claims={})
            return raw_device(node, name, token=token, url=node.url)

        async with device("veh-1"), device("veh-2"):
            (first, *_) = await facts_when(node, 2)
            node.kill()
        await asyncio.to_thread(node.start)
        async with device("veh-1"):

            async def told():
                truth = truth_of(await presence(nats_of(node)))
                back, lost = truth["veh-1"], truth["veh-2"]
                return back["online"] and back["node"] != first["node"] and not lost["online"]

            await eventually(told, "the truth after the restart")
        facts = await presence(nats_of(node))
        assert truth_of(facts)["veh-2"]["cause"] == "node_lost"
        came = [fact["fence"] for fact in facts if fact["device"] == "veh-1" and fact["online"]]
        assert came == sorted(came)
        assert len(came) == 2
    finally:
        node.stop()


async def test_without_presence_nothing_is_stored(tmp_path):
    async with running_gateway(tmp_path, presence__enabled=False) as gateway:
        async with raw_device(gateway, "veh-1") as device:
            await device.say(message(1))
            await device.hear_ack(1)
        assert await presence(nats_of(gateway)) == []
