"""The last presence fact of each device, by its fence, is the truth, whatever happens to nodes."""

import asyncio
import contextlib
import signal

from support.fleet import (
    STEADY,
    complete,
    fleet_of,
    minted,
    node_settings,
    nodes,
    redis_client,
    registered,
)
from support.gateways import running_gateway
from support.presence import presence, states_in, truth_of
from support.processes import GatewayProcess
from support.servers import free_port
from support.waiting import eventually
from support.wire import raw_device

DEVICES = 6

ANYWHERE = (True, None, None)
"""Online, for whatever cause, at whatever node."""


async def truth_becomes(servers, expected):
    """Wait until the truth about each device is its online state, cause and node (None for any)."""
    seen = {}

    def fits(fact, wanted):
        return fact is not None and all(
            want in (None, have) for have, want in zip(fact, wanted, strict=True)
        )

    async def so():
        seen.clear()
        for name, fact in truth_of(await presence(servers[0].url)).items():
            seen[name] = (fact["online"], fact["cause"], fact["node"])
        return all(fits(seen.get(name), wanted) for name, wanted in expected.items())

    try:
        await eventually(so, "the truth")
    except AssertionError as exc:
        raise AssertionError(f"{exc}: {seen}") from None


@contextlib.asynccontextmanager
async def devices_at(node, tmp_path, count=DEVICES):
    """Devices veh-0 and so on, connected to a node."""
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for number in range(count):
            name = f"veh-{number}"
            connecting = raw_device(node, name, token=minted(tmp_path, name))
            made.append(await stack.enter_async_context(connecting))
        yield made


def all_of(online, cause=None, node=None):
    """What is expected of every device of `devices_at`."""
    return {f"veh-{number}": (online, cause, node) for number in range(DEVICES)}


async def test_a_takeover_leaves_the_device_online_at_the_newer_node(tmp_path, servers):
    async with nodes(tmp_path, servers, **STEADY) as (one, two):
        async with devices_at(one, tmp_path):
            for number in range(DEVICES):
                await registered(servers, one, f"veh-{number}")
            async with devices_at(two, tmp_path):
                newer = all_of(True, node=two.basis.node)
                await truth_becomes(servers, newer)

                async def ended():
                    causes = [fact["cause"] for fact in await presence(servers[0].url)]
                    return causes.count("taken_over") == DEVICES

                await eventually(ended, "the ends of the older sessions")
                await truth_becomes(servers, newer)
        await truth_becomes(servers, all_of(False, "closed 1000"))


@contextlib.asynccontextmanager
async def killed_node(tmp_path, servers, one):
    """A node in a process of its own, in the fleet of `one`."""
    settings = node_settings(tmp_path, servers)
    process = GatewayProcess(
        tmp_path / "killed",
        NATS__URLS=servers[0].url,
        STREAM__DURABILITY="stream",
        CREDENTIALS__JWKS_FILE=str(settings["credentials__jwks_file"]),
        CLUSTER__REDIS_URL=servers[1].url,
        CLUSTER__HEARTBEAT_MS="100",
        CLUSTER__NODE_TIMEOUT_MS="3000",
        DRAIN__LINGER_MS="0",
    )
    await asyncio.to_thread(process.start)
    try:
        await eventually(lambda: fleet_of(one)["nodes"] == 2)
        yield process
    finally:
        process.stop()


async def test_the_devices_of_a_node_that_was_killed_are_put_offline_by_the_others(
    tmp_path, servers
):
    async with nodes(tmp_path, servers, 1, **STEADY) as (one,):
        async with killed_node(tmp_path, servers, one) as node:
            async with contextlib.AsyncExitStack() as stack:
                for number in range(DEVICES):
                    name = f"veh-{number}"
                    await stack.enter_async_context(
                        raw_device(one, name, token=minted(tmp_path, name), url=node.url)
                    )
                await truth_becomes(servers, all_of(True))
                node.kill()
            # One device is back, on the other node, before the dead one is missed.
            async with raw_device(one, "veh-0", token=minted(tmp_path, "veh-0")):
                # The facts of the lost ones are those of the node that put them offline.
                here = one.basis.node
                lost = all_of(False, "node_lost", here)
                await truth_becomes(servers, lost | {"veh-0": (True, "connected", here)})
                count = "tidegate_presence_node_lost_total"
                await eventually(lambda: one.metrics.value(count) >= DEVICES - 1, count)


async def test_a_node_that_was_paused_announces_its_sessions_again(tmp_path, servers):
    async with nodes(tmp_path, servers, 1, **STEADY) as (one,):
        async with killed_node(tmp_path, servers, one) as node:
            async with contextlib.AsyncExitStack() as stack:
                for number in range(DEVICES):
                    name = f"veh-{number}"
                    await stack.enter_async_context(
                        raw_device(one, name, token=minted(tmp_path, name), url=node.url)
                    )
                await truth_becomes(servers, all_of(True))
                node.signal(signal.SIGSTOP)
                try:
                    await truth_becomes(servers, all_of(False, "node_lost"))
                finally:
                    node.signal(signal.SIGCONT)
                await truth_becomes(servers, all_of(True, "connected"))


class Cut:
    """A way to Redis that can be cut."""

    def __init__(self, port):
        self.target = port
        self.port = free_port()
        self.open = True
        self._writers = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_exc):
        self.cut()
        self._server.close()

    def cut(self):
        self.open = False
        for writer in tuple(self._writers):
            writer.close()

    async def _serve(self, reader, writer):
        self._writers.add(writer)
        try:
            if self.open:
                there = await asyncio.open_connection("127.0.0.1", self.target)
                self._writers.add(there[1])
                await asyncio.gather(self._pass(reader, there[1]), self._pass(there[0], writer))
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _pass(self, reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
        writer.close()


async def test_a_node_that_was_cut_from_redis_and_came_back_has_the_last_word(tmp_path, servers):
    async with nodes(tmp_path, servers, 1, **STEADY) as (one,), Cut(servers[1].port) as way:
        settings = node_settings(tmp_path, servers, **STEADY)
        settings["cluster__redis_url"] = f"redis://127.0.0.1:{way.port}"
        async with running_gateway(tmp_path / "two", **settings) as two:
            await complete([one, two])
            async with devices_at(two, tmp_path) as here:
                await truth_becomes(servers, all_of(True))
                way.cut()
                await truth_becomes(servers, all_of(False, "node_lost"))
                # One moves meanwhile, and one more comes to the node that is cut off.
                async with raw_device(one, "veh-0", token=minted(tmp_path, "veh-0")):
                    async with raw_device(two, "new", token=minted(tmp_path, "new")):
                        way.open = True
                        await complete([one, two])
                        assert (await here[0].closed())[0] == 4409
                        moved = {"veh-0": (True, None, one.basis.node)}
                        others = all_of(True, node=two.basis.node)
                        await truth_becomes(servers, others | moved | {"new": ANYWHERE})


async def test_the_truth_survives_a_redis_that_forgets(tmp_path, servers):
    async with nodes(tmp_path, servers, **STEADY) as (one, two):
        async with (
            devices_at(one, tmp_path),
            raw_device(two, "other", token=minted(tmp_path, "other")),
        ):
            await truth_becomes(servers, all_of(True))
            client = redis_client(servers)
            client.flushall()
            client.close()
            again = DEVICES + 1

            async def announced():
                facts = await presence(servers[0].url)
                return states_in(facts).count((True, "connected")) >= 2 * again

            await eventually(announced, "all sessions announced again")
            await complete([one, two])
            await truth_becomes(servers, all_of(True) | {"other": ANYWHERE})


async def test_what_a_whole_fleet_left_online_is_ended_by_the_next(tmp_path, servers):
    """Everybody who knew the dead node is gone too: the nodes find it by what is stored."""
    async with nodes(tmp_path, servers, 1, **STEADY) as (one,):
        async with killed_node(tmp_path, servers, one) as node:
            async with raw_device(one, "veh-0", token=minted(tmp_path, "veh-0"), url=node.url):
                await truth_becomes(servers, {"veh-0": ANYWHERE})
                await one.stop()
                node.kill()
    client = redis_client(servers)
    client.flushall()
    client.close()
    settings = node_settings(tmp_path, servers, **STEADY)
    async with running_gateway(tmp_path / "next", **settings):
        await truth_becomes(servers, {"veh-0": (False, "node_lost", None)})
