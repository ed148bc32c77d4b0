"""Several gateways over a real redis-server and nats-server share one calendar and one registry."""

import asyncio
import contextlib
import time

import aiohttp
import pytest
from websockets.exceptions import InvalidStatus

from gateway import development
from gateway.admission.revocation import Revocation
from support.fleet import STEADY, fleet_of, minted, node_settings, nodes, registered
from support.gateways import running_gateway, url_of
from support.processes import GatewayProcess
from support.stored import by_device, read_stream
from support.waiting import eventually, within
from support.wire import message, raw_device
from tidegate import BackoffSettings, Device


async def test_the_newest_connection_wins_on_any_node(tmp_path, servers):
    token = minted(tmp_path, "veh-1")
    async with nodes(tmp_path, servers) as (one, two):
        async with raw_device(one, token=token) as first:
            await first.say(message(1))
            await first.hear_ack(1)
            await registered(servers, one)
            async with raw_device(two, token=token, oldest=2) as second:
                code, reason = await first.closed()
                assert (code, reason["error"]) == (4409, "taken_over")
                await second.say(message(2))
                await second.hear_ack(2)
                async with raw_device(one, token=token, oldest=3) as third:
                    assert (await second.closed())[0] == 4409
                    await third.say(message(3))
                    await third.hear_ack(3)
    stored = by_device(await read_stream(servers[0].url))
    assert stored == {("veh-1", "box"): [1, 2, 3]}


async def test_a_ticket_of_one_node_is_honoured_by_another(tmp_path, servers):
    settings = {
        "admission__rate_per_s": 2.0,
        "admission__rate_floor_per_s": 2.0,
        "admission__burst": 1,
        "admission__park_ms": 50,
    }
    async with nodes(tmp_path, servers, **settings) as (one, two):
        refusals = []
        for number in range(6):
            token = minted(tmp_path, f"veh-{number}")
            try:
                async with raw_device(one, token=token):
                    pass
            except InvalidStatus as exc:
                refusals.append((f"veh-{number}", token, exc.response))
        assert refusals
        name, token, response = refusals[0]
        ticket = response.headers["Tidegate-Ticket"]
        await eventually(lambda: _enters(two, name, token, ticket))
        assert two.metrics.value("tidegate_tickets_total", {"outcome": "honoured"}) >= 1


async def _enters(node, name, token, ticket):
    try:
        async with raw_device(node, name, token=token, ticket=ticket):
            return True
    except InvalidStatus:
        return False


async def test_a_revocation_reaches_live_sessions_everywhere_and_later_nodes(tmp_path, servers):
    token = minted(tmp_path, "veh-1", jti="j-1")
    async with nodes(tmp_path, servers) as (one, two):
        async with raw_device(two, token=token) as device:
            assert (
                await one.operators.revocations.spread(Revocation(time.time() + 60, jti="j-1"))
                == "fleet"
            )
            assert (await device.closed())[0] == 4403
        with pytest.raises(InvalidStatus) as caught:
            async with raw_device(two, token=token):
                pass
        assert caught.value.response.status_code == 403
        async with raw_device(two, token=minted(tmp_path, "veh-1", jti="j-2")) as other:
            await one.operators.revocations.spread(
                Revocation(time.time() + 60, tenant="default", device="veh-1")
            )
            assert (await other.closed())[0] == 4403
        late = running_gateway(
            tmp_path / "late",
            nats__urls=(servers[0].url,),
            stream__durability="stream",
            credentials__jwks_file=tmp_path / "keys" / "development-jwks.json",
            cluster__redis_url=servers[1].url,
        )
        async with late as third:
            await eventually(lambda: third.status()["admission"]["revoked"] == 2)


async def test_without_redis_each_node_goes_on_with_its_share_and_heals_by_itself(
    tmp_path, servers
):
    _nats, redis = servers
    token = minted(tmp_path, "veh-1")
    async with nodes(tmp_path, servers, **STEADY) as (one, two):
        async with raw_device(one, token=token) as device:
            redis.kill()
            await eventually(lambda: fleet_of(one)["alone"] and fleet_of(two)["alone"])
            assert one.status()["admission"]["rate_per_s"] == 300
            await device.say(message(1))
            await device.hear_ack(1)  # sessions live on
            async with raw_device(two, "veh-2", token=minted(tmp_path, "veh-2")) as new:
                await new.say(message(1))
                await new.hear_ack(1)
            # While nobody tells them, a device may be on two nodes; the newest wins afterwards.
            async with raw_device(two, token=token, oldest=2) as newer:
                redis.start()
                await eventually(lambda: not fleet_of(one)["alone"] and not fleet_of(two)["alone"])
                assert (await device.closed())[0] == 4409
                await newer.say(message(2))
                await newer.hear_ack(2)
        assert one.metrics.exposition()[0].count(b"tidegate_redis_up 1.0") == 1


async def test_a_node_back_at_redis_keeps_its_share_until_the_missing_are_gone(tmp_path, servers):
    _nats, redis = servers
    async with nodes(tmp_path, servers, **STEADY) as (one, two):
        redis.kill()
        await eventually(lambda: fleet_of(one)["alone"] and fleet_of(two)["alone"])
        await two.stop()
        redis.start()
        await within(one.admission.membership.link.wait_up())
        assert fleet_of(one)["alone"]
        assert one.status()["admission"]["rate_per_s"] == 300
        await eventually(lambda: not fleet_of(one)["alone"])
        assert one.status()["admission"]["rate_per_s"] == 600


async def test_tickets_outlive_a_redis_that_lost_its_memory(tmp_path, servers):
    _nats, redis = servers
    async with nodes(tmp_path, servers) as (one, two):
        offices = [node.admission.office for node in (one, two)]
        issued_with = offices[0]._secrets[0]
        assert offices[1]._secrets[0] == issued_with
        redis.kill()
        await eventually(lambda: fleet_of(one)["alone"] and fleet_of(two)["alone"])
        redis.start()
        await eventually(lambda: not fleet_of(one)["alone"] and not fleet_of(two)["alone"])
        # They may go on with another secret that both accept; what was issued is honoured by both.
        assert all(issued_with in office._secrets for office in offices)
        await eventually(lambda: offices[0]._secrets[0] == offices[1]._secrets[0])


async def test_a_drained_node_hands_its_devices_over_make_before_break(tmp_path, servers):
    """Each device has its new connection before the old one ends; no message is lost or doubled."""
    count, each = 20, 40
    async with nodes(tmp_path, servers, drain__rate_per_s=100.0, drain__linger_ms=5_000) as (
        one,
        two,
    ):
        async with contextlib.AsyncExitStack() as stack:
            devices = [
                await stack.enter_async_context(
                    Device(
                        [url_of(one), url_of(two)],
                        minted(tmp_path, f"veh-{number}"),
                        outbox=tmp_path / f"veh-{number}.outbox",
                        backoff=BackoffSettings(first_retry_ms=20, base_ms=20, cap_ms=200),
                    )
                )
                for number in range(count)
            ]
            for device in devices:
                await within(device.connected.wait())
            before = [device.knocks.refusals for device in devices]
            broken = 0

            async def talk(device):
                nonlocal broken
                for n in range(each):
                    await device.send("t", {"n": n})
                    broken += not device.connected.is_set()

            talking = asyncio.gather(*(talk(device) for device in devices))
            stopping = asyncio.create_task(one.stop())
            await within(talking)
            await within(stopping)
            await within(asyncio.gather(*(device.flush() for device in devices)))
            assert broken == 0, "a device was without a connection"
            assert [device.knocks.refusals for device in devices] == before
            assert two.status()["devices"] == count
    stored = by_device(await read_stream(servers[0].url))
    assert sorted(device for device, _ in stored) == sorted(f"veh-{n}" for n in range(count))
    assert all(seqs == list(range(1, each + 1)) for seqs in stored.values())


@pytest.mark.long
async def test_a_rolling_restart_of_three_nodes_refuses_nobody_and_loses_nothing(tmp_path, servers):
    nats, redis = servers
    keys = development.ensure_key(tmp_path / "keys")
    environment = {
        "NATS__URLS": nats.url,
        "STREAM__DURABILITY": "stream",
        "CREDENTIALS__JWKS_FILE": str(keys),
        "CLUSTER__REDIS_URL": redis.url,
        "CLUSTER__HEARTBEAT_MS": "100",
        "CLUSTER__NODE_TIMEOUT_MS": "1000",
        "CLUSTER__LEASE_MS": "10",
        "DRAIN__RATE_PER_S": "100",
    }
    fleet = [GatewayProcess(tmp_path / f"node-{n}", **environment) for n in range(3)]
    try:
        for node in fleet:
            node.start()
        await _all_see(fleet, 3)
        urls = [node.url for node in fleet]
        async with contextlib.AsyncExitStack() as stack:
            devices = [
                await stack.enter_async_context(
                    Device(
                        urls,
                        minted(tmp_path, f"veh-{number}"),
                        outbox=tmp_path / f"veh-{number}.outbox",
                        backoff=BackoffSettings(first_retry_ms=20, base_ms=20, cap_ms=200),
                    )
                )
                for number in range(15)
            ]
            for device in devices:
                await within(device.connected.wait())
            sent = [0] * len(devices)
            rolling = True

            async def talk(number):
                while rolling:
                    sent[number] = await devices[number].send("t", {"n": sent[number]})

            talking = [asyncio.create_task(talk(number)) for number in range(len(devices))]
            for node in fleet:
                node.signal(15)
                assert await node.ended() == 0
                await asyncio.to_thread(node.start)
                await _all_see(fleet, 3)
            rolling = False
            await within(asyncio.gather(*talking))
            await within(asyncio.gather(*(device.flush() for device in devices)))
            # `draining` may meet a device that tries its node's neighbours; nothing else may.
            assert sum(device.knocks.refusals for device in devices) <= len(devices)
        stored = by_device(await read_stream(nats.url))
        assert sum(len(seqs) for seqs in stored.values()) == sum(sent)
        assert all(seqs == list(range(1, len(seqs) + 1)) for seqs in stored.values())
    finally:
        for node in fleet:
            node.stop()


async def _all_see(fleet, count):
    async with aiohttp.ClientSession() as http:

        async def seen():
            for node in fleet:
                async with http.get(f"http://127.0.0.1:{node.ops_port}/status") as response:
                    page = await response.json()
                if page["admission"]["fleet"]["nodes"] != count or page["state"] != "serving":
                    return False
            return True

        await eventually(seen)


async def test_what_operators_change_holds_on_all_nodes_also_on_one_that_starts_later(
    tmp_path, servers
):
    async with nodes(tmp_path, servers, **STEADY) as (one, two):
        steering = one.admission.steering
        assert await steering.steer({"rate_per_s": 50.0, "burst": 9.0}, 3_600, "alice") == "fleet"
        await eventually(lambda: two.status()["admission"]["burst"] == 9)
        await eventually(lambda: all(r == 50 for r in _rates(one, two)), "R of the fleet")
        assert two.status()["admission"]["steered"]["rate_per_s"]["by"] == "alice"
        settings = node_settings(tmp_path, servers, **STEADY)
        async with running_gateway(tmp_path / "later", **settings) as three:
            await eventually(lambda: three.admission.steering.in_force.burst == 9)
            assert await three.admission.steering.unsteer("bob") == "fleet"
            await eventually(lambda: all(r == 600 for r in _rates(one, two, three)))


async def test_a_change_ordered_while_redis_is_away_reaches_the_fleet_later(tmp_path, servers):
    async with nodes(tmp_path, servers, **STEADY) as (one, two):
        servers[1].stop()
        await eventually(lambda: not fleet_of(one)["redis_up"])
        assert await one.admission.steering.steer({"rate_per_s": 50.0}, 3_600, "a") == "pending"
        assert one.admission.steering.in_force.rate_per_s == 50
        servers[1].start()
        await eventually(lambda: two.admission.steering.in_force.rate_per_s == 50)


def _rates(*fleet):
    return [node.status()["admission"]["rate_per_s"] for node in fleet]


async def test_a_device_is_looked_up_and_disconnected_on_whichever_node_it_is(tmp_path, servers):
    async with nodes(tmp_path, servers, **STEADY) as (one, two):
        async with raw_device(two, token=minted(tmp_path, "veh-1")) as device:
            await device.say(message(1))
            await device.hear_ack(1)
            async with aiohttp.ClientSession(f"http://127.0.0.1:{one.ops_port}") as http:
                async with http.get("/devices/default/veh-1") as response:
                    found = await response.json()
                assert (found["node"], found["session"]["acked"]) == (two.basis.node, 1)
                assert (found["nodes"], found["nodes_answered"]) == (2, 2)
                order = {"tenant": "default", "device": "veh-1"}
                async with http.post("/disconnect", json=order) as response:
                    assert (await response.json())["disconnected"]
            assert (await device.closed())[0] == 1012
