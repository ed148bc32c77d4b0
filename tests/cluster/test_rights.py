"""A Redis that refuses: the reason is named; the rights that are needed are those documented."""

import re
from pathlib import Path

import pytest
import redis

from gateway.admission.revocation import Revocation
from gateway.cluster.driver import unavailable
from gateway.cluster.errors import RedisRefused, RedisUnavailable
from support.fleet import STEADY, complete, fleet_of, minted, node_settings, nodes, registered
from support.gateways import running_gateway
from support.waiting import eventually
from support.wire import raw_device

PAGE = Path(__file__).parents[2] / "config" / "README.md"


def documented_rights():
    """The ACL line of config/README.md, without its user and password."""
    line = r"^ACL SETUSER tidegate on >\S+ (.+?)\n```"
    found = re.search(line, PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return found[1].replace("\\\n", " ").split()


@pytest.fixture
def admin(servers):
    client = redis.Redis(port=servers[1].port, decode_responses=True)
    yield client
    client.close()


def as_user(servers, password="secret"):
    return f"redis://tidegate:{password}@127.0.0.1:{servers[1].port}"


async def test_a_fleet_lives_with_exactly_the_documented_rights(tmp_path, servers, admin):
    admin.execute_command("ACL", "SETUSER", "tidegate", "reset", "on", ">secret",
                          *documented_rights())  # fmt: skip
    token = minted(tmp_path, "veh-1")
    async with nodes(tmp_path, servers, cluster__redis_url=as_user(servers)) as (one, two):
        async with raw_device(one, token=token) as first:
            await registered(servers, one)
            async with raw_device(two, token=token):
                assert (await first.closed())[0] == 4409
        revocations = one.operators.revocations
        assert await revocations.spread(Revocation(2**40, jti="j-1")) == "fleet"
        await eventually(lambda: two.status()["admission"]["revoked"] == 1)
        assert [fleet_of(node)["redis_trouble"] for node in (one, two)] == [None, None]
        assert admin.execute_command("ACL", "LOG") == []


@pytest.mark.parametrize(
    "withheld", ["-publish", "-subscribe", "-evalsha", "-hset", "resetchannels", "resetkeys"]
)
async def test_a_missing_right_is_named_and_stops_the_start(tmp_path, servers, admin, withheld):
    admin.execute_command("ACL", "SETUSER", "tidegate", "reset", "on", ">secret",
                          *documented_rights(), withheld)  # fmt: skip
    settings = node_settings(tmp_path, servers, cluster__redis_url=as_user(servers))
    with pytest.raises(RedisRefused) as caught:
        async with running_gateway(tmp_path / "node", **settings):
            pass
    assert caught.value.reason == "no_permission"
    assert "secret" not in str(caught.value)
    name = withheld.removeprefix("-")
    assert withheld.startswith("reset") or name in str(caught.value)


async def test_a_wrong_password_stops_the_start(tmp_path, servers, admin):
    admin.execute_command("ACL", "SETUSER", "tidegate", "reset", "on", ">secret", "+@all", "~*")
    settings = node_settings(tmp_path, servers, cluster__redis_url=as_user(servers, "hunter2"))
    with pytest.raises(RedisRefused) as caught:
        async with running_gateway(tmp_path / "node", **settings):
            pass
    assert caught.value.reason == "wrong_password"
    assert "hunter2" not in str(caught.value)


async def test_a_password_that_is_changed_later_is_said_and_the_node_keeps_to_its_share(
    tmp_path, servers, admin
):
    admin.execute_command("ACL", "SETUSER", "tidegate", "reset", "on", ">secret",
                          *documented_rights())  # fmt: skip
    url = as_user(servers)
    settings = {"cluster__redis_url": url, **STEADY}
    async with nodes(tmp_path, servers, **settings) as fleet:
        admin.execute_command("ACL", "SETUSER", "tidegate", "<secret", ">other")
        admin.execute_command("CLIENT", "KILL", "USER", "tidegate")
        reason = {"reason": "wrong_password"}
        await eventually(
            lambda: all(
                node.metrics.value("tidegate_redis_trouble", reason) == 1
                and fleet_of(node)["alone"]
                for node in fleet
            )
        )
        for node in fleet:
            assert node.status()["admission"]["rate_per_s"] == 300
            assert "wrong password" in fleet_of(node)["redis_trouble"]
        admin.execute_command("ACL", "SETUSER", "tidegate", "<other", ">secret")
        await complete(fleet)
        await eventually(lambda: all(fleet_of(node)["redis_trouble"] is None for node in fleet))


async def test_a_node_that_never_met_its_fleet_admits_a_share(tmp_path, servers):
    servers[1].kill()
    settings = node_settings(tmp_path, servers, **STEADY)
    async with running_gateway(tmp_path / "a", **settings) as node:
        assert node.status()["admission"]["rate_per_s"] == 200
    async with running_gateway(tmp_path / "b", **settings, cluster__assumed_nodes=1) as node:
        assert node.status()["admission"]["rate_per_s"] == 600


@pytest.mark.parametrize(
    ("cause", "cure", "reason"),
    [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "out_of_memory"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "read_only"),
    ],
)
async def test_a_redis_that_takes_nothing_more_is_said_with_its_reason(
    tmp_path, servers, admin, cause, cure, reason
):
    async with nodes(tmp_path, servers) as fleet:
        admin.execute_command(*cause.split())
        await eventually(
            lambda: all(
                node.metrics.value("tidegate_redis_trouble", {"reason": reason}) == 1
                and fleet_of(node)["alone"]
                for node in fleet
            )
        )
        admin.execute_command(*cure.split())
        await complete(fleet)


def test_an_error_of_the_library_has_a_reason():
    cases = {
        redis.exceptions.AuthenticationError("WRONGPASS invalid"): "wrong_password",
        redis.exceptions.ResponseError("NOAUTH Authentication required."): "wrong_password",
        redis.exceptions.NoPermissionError("this user has no permissions"): "no_permission",
        redis.exceptions.ReadOnlyError("You can't write against a read only replica."): "read_only",
        redis.exceptions.ResponseError("x OOM command not allowed"): "out_of_memory",
        redis.exceptions.BusyLoadingError("Redis is loading"): "loading",
        redis.exceptions.TimeoutError("Timeout reading"): "no_answer",
        redis.exceptions.ConnectionError("Error 111"): "unreachable",
        redis.exceptions.ResponseError("WRONGTYPE Operation"): "error",
        ConnectionRefusedError(111, "Connection refused"): "unreachable",
    }
    for exc, reason in cases.items():
        made = unavailable(exc)
        assert made.reason == reason, exc
        refused = reason in ("wrong_password", "no_permission")
        assert isinstance(made, RedisRefused) == refused
        assert isinstance(made, RedisUnavailable)
