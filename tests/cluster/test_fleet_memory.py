"""What a fleet knows survives the loss of Redis, of its memory, of nodes, or of several."""

import contextlib
import time

import pytest
from websockets.exceptions import InvalidStatus

from gateway.admission.revocation import Revocation
from gateway.ops.orders import Subject
from support.fleet import (
    complete,
    fleet_of,
    minted,
    node_settings,
    nodes,
    redis_client,
    registered,
)
from support.gateways import running_gateway
from support.waiting import eventually
from support.wire import raw_device


def revocation(device="veh-1"):
    return Revocation(time.time() + 3_600, tenant="default", device=device)


def revocations_of(node):
    return node.operators.revocations


async def refused(node, token):
    """Whether the device is refused for good."""
    try:
        async with raw_device(node, token=token):
            return False
    except InvalidStatus as exc:
        return exc.response.status_code == 403


async def test_a_revocation_made_while_redis_is_away_is_shared_afterwards(tmp_path, servers):
    token = minted(tmp_path, "veh-1")
    async with nodes(tmp_path, servers) as (one, two), raw_device(two, token=token) as device:
        servers[1].kill()
        await eventually(lambda: fleet_of(one)["alone"])
        assert await revocations_of(one).spread(revocation()) == "pending"
        assert one.status()["admission"]["revocations_pending"] == 1
        servers[1].start()
        assert (await device.closed())[0] == 4403
        assert await refused(two, token)
        await eventually(lambda: one.status()["admission"]["revocations_pending"] == 0)


async def test_a_shared_revocation_outlives_redis_and_the_node_that_made_it(tmp_path, servers):
    token = minted(tmp_path, "veh-1")
    settings = node_settings(tmp_path, servers)
    async with contextlib.AsyncExitStack() as made:
        one = await made.enter_async_context(running_gateway(tmp_path / "one", **settings))
        async with running_gateway(tmp_path / "two", **settings) as two:
            await complete([one, two])
            assert await revocations_of(one).spread(revocation()) == "fleet"
            await eventually(lambda: two.status()["admission"]["revoked"] == 1)
            servers[1].kill()
            await made.aclose()  # the node that made it is gone
            servers[1].start()
            await eventually(lambda: not fleet_of(two)["alone"])
            # One that never heard of it, and one that starts where the first was.
            for directory in ("three", "one"):
                async with running_gateway(tmp_path / directory, **settings) as late:
                    await eventually(lambda late=late: late.status()["admission"]["revoked"] == 1)
                    assert await refused(late, token)


async def test_what_was_undone_stays_undone_whoever_comes_back(tmp_path, servers):
    """A node that has the old revocation was away while it was undone."""
    token = minted(tmp_path, "veh-1")
    settings = node_settings(tmp_path, servers)
    async with running_gateway(tmp_path / "one", **settings) as one:
        async with running_gateway(tmp_path / "two", **settings) as two:
            await complete([one, two])
            await revocations_of(one).spread(revocation())
            await eventually(lambda: two.status()["admission"]["revoked"] == 1)
        lifted = await revocations_of(one).unrevoke(Subject("", "default", "veh-1"))
        assert lifted == "fleet"
        redis_client(servers).flushall()
        async with running_gateway(tmp_path / "two", **settings) as two:
            await complete([one, two])
            for node in (one, two):
                await eventually(lambda node=node: node.status()["admission"]["revoked"] == 0)
                assert not await refused(node, token)


@pytest.mark.parametrize("lost", ["everything", "devices", "revoked", "ticket-secrets", "fleet"])
async def test_a_redis_that_forgot_is_given_everything_back(tmp_path, servers, lost):
    token = minted(tmp_path, "veh-1")
    client = redis_client(servers)
    async with nodes(tmp_path, servers) as (one, two), raw_device(one, token=token) as first:
        await revocations_of(one).spread(revocation("bad"))
        await eventually(lambda: len({node.admission.keyring.issuing for node in (one, two)}) == 1)
        secrets = {node.admission.keyring.issuing for node in (one, two)}
        await registered(servers, one)
        before = client.hget("tidegate:fleet", "epoch")
        if lost == "everything":
            client.flushall()
        else:
            client.delete(f"tidegate:{lost}")
        await eventually(lambda: client.hget("tidegate:fleet", "epoch") not in (before, None))
        await registered(servers, one)
        await eventually(lambda: client.hexists("tidegate:revoked", "default/bad"))
        await eventually(lambda: client.hlen("tidegate:ticket-secrets") == 2)  # it and its marker
        await eventually(lambda: not fleet_of(one)["alone"] and not fleet_of(two)["alone"])
        async with raw_device(two, token=token):
            assert (await first.closed())[0] == 4409
        settings = node_settings(tmp_path, servers)
        async with running_gateway(tmp_path / "late", **settings) as late:
            assert late.status()["admission"]["revoked"] == 1
            await eventually(lambda: late.admission.keyring.issuing in secrets)
    client.close()


async def test_a_newcomer_that_finds_an_empty_redis_first_dishonours_no_ticket(tmp_path, servers):
    """Redis gets its secret before that of the fleet. All nodes accept both, and sign with one."""
    settings = node_settings(tmp_path, servers)
    async with nodes(tmp_path, servers) as (one, two):
        agreed = {node.admission.keyring.issuing for node in (one, two)}
        assert len(agreed) == 1
        servers[1].kill()
        await eventually(lambda: fleet_of(one)["alone"] and fleet_of(two)["alone"])
        servers[1].start()
        async with running_gateway(tmp_path / "late", **settings) as late:
            fleet = [one, two, late]
            await complete(fleet)
            await eventually(
                lambda: (
                    len({node.admission.keyring.issuing for node in fleet}) == 1
                    and all(agreed <= set(node.admission.keyring.secrets) for node in fleet)
                )
            )
