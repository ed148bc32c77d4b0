"""Several gateways in the test's own loop, as one fleet over a real Redis and nats-server."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import redis

from gateway import development
from gateway.app import Gateway
from support.gateways import Wall, running_gateway
from support.servers import NatsServer, RedisServer
from support.waiting import eventually

Servers = tuple[NatsServer, RedisServer]

LIFETIME_S = 3 * 3_600
"""Of credentials: they must be good on a node whose clock is an hour ahead."""


def node_settings(tmp_path: Path, servers: Servers, **settings: Any) -> dict[str, Any]:
    """What a member of the fleet is set to."""
    nats, redis_of_fleet = servers
    return {
        "nats__urls": (nats.url,),
        "stream__durability": "stream",
        "credentials__jwks_file": development.ensure_key(tmp_path / "keys"),
        "cluster__redis_url": redis_of_fleet.url,
        "cluster__heartbeat_ms": 100,
        "cluster__node_timeout_ms": 3_000,
        "cluster__lease_ms": 10,
        **settings,
    }


STEADY: dict[str, Any] = {"admission__rate_per_s": 600.0}
"""An R that two and three nodes share without a remainder."""


@contextlib.asynccontextmanager
async def nodes(
    tmp_path: Path,
    servers: Servers,
    count: int = 2,
    *,
    walls: Mapping[int, Wall] | None = None,
    **settings: Any,
) -> AsyncIterator[list[Gateway]]:
    """A fleet that is complete. `walls`: the wall clocks of some of its nodes."""
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for number in range(count):
            more = {"wall": walls[number]} if walls and number in walls else {}
            running = running_gateway(
                tmp_path / f"node-{number}", **more, **node_settings(tmp_path, servers, **settings)
            )
            made.append(await stack.enter_async_context(running))
        await complete(made)
        yield made


async def complete(fleet: list[Gateway]) -> None:
    """Wait until every node has heard of every other and takes part."""
    count = len(fleet)
    await eventually(
        lambda: all(
            fleet_of(node)["nodes"] == count and not fleet_of(node)["alone"] for node in fleet
        ),
        "a complete fleet",
    )


async def registered(servers: Servers, node: Gateway, device: str = "veh-1") -> None:
    """Wait until Redis knows that the device is on that node.

    A session that begins elsewhere before that may be taken for the older one: Redis compares them
    with the delay of its calls.
    """
    with redis_client(servers) as client:

        def so() -> bool:
            holder = client.hget("tidegate:devices", f"default/{device}")
            return holder is not None and holder.endswith(f" {node.basis.node}")

        await eventually(so, f"{device} on {node.basis.node}")


def fleet_of(node: Gateway) -> dict[str, Any]:
    """What the status page says about the fleet."""
    page: dict[str, Any] = node.status()["admission"]["fleet"]
    return page


def minted(tmp_path: Path, device: str, **claims: Any) -> str:
    """A credential that every node believes."""
    return development.mint(tmp_path / "keys", device, lifetime_s=LIFETIME_S, claims=claims)


def redis_client(servers: Servers) -> "redis.Redis[str]":
    """To look into, or to damage, what the fleet keeps in Redis."""
    return redis.Redis(port=servers[1].port, decode_responses=True)


def set_redis_clock(servers: Servers, by_s: float) -> None:
    """The clock of Redis is set: to the nodes, what it notes about its clock is off by as much."""
    client = redis_client(servers)
    client.hincrbyfloat("tidegate:fleet", "shift", by_s)
    for name in client.hkeys("tidegate:views"):
        client.hincrbyfloat("tidegate:views", name, by_s)
    client.close()
